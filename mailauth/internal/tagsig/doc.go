// Package tagsig has what the signing fields of DKIM (RFC 6376) and ARC (RFC 8617) have in common: lists of tags, and
// the canonical forms of fields and bodies.
package tagsig
