//go:build interop

// Package interop holds dialogs of the built godwit binary with real peers, all on loopback and with configurations of
// their own in a temporary directory: mail is handed in by swaks, msmtp, curl, Python's smtplib, nodemailer and
// smtp-source; unbound tells where it goes; Postfix, Exim and Dovecot take it. What arrives is compared with what was sent,
// byte for byte, and reports that come back are read by Python's email package, which is not ours. Signatures and chains are
// compared with those of dkimpy, OpenDKIM and mox, senders with pyspf and mox, and policies with mox. What the binary signs is
// verified by dkimpy, OpenDKIM, Mail::DKIM and go-msgauth.
//
// scripts/interop installs the peers and runs all of it (make interop). Without them:
//
//	go test -tags interop ./test/interop -v
//
// skips what needs a peer that is missing and says which. INTEROP_SHORT=1 is the part that CI runs, INTEROP_REQUIRE=1 makes
// a missing peer a failure. Postfix, Exim and Dovecot are started by root and drop it themselves.
//
// Each peer is a file that knows how to configure, start and stop it; site.go puts them together; the *_test.go files are
// the dialogs.
package interop
