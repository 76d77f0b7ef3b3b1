// Package journal keeps what happened: an append-only sequence of checksummed records, durable when acknowledged.
package journal
