// Package crash makes faults of every kind under the real server and proves from ledgers kept outside of it that no
// mail is lost: processes killed, power cut, disks that fail, fill up, stand still or rot, memory that runs out,
// clients, remotes, names and clocks that misbehave.
//
// Each row of the fault matrix in docs/durability.md is a [Scenario] with a quick and a full size. Most are played
// on a stage: `godwit serve` as a process of its own, with a configuration file and its data on disk; submitters
// that hand it mail over raw SMTP (DATA and BDAT, pipelined or not, 1 to 50 recipients, 1 to 200 KB), some of whom
// break off, reset or send what must be refused; sinks that play mailbox providers behind a DNS server on loopback:
// quick, slow, refusing, limiting, dropping connections at the worst moments. At the end the server may empty its
// queue and stop in order. Errors of the file system come from a server in a process of the test program, whose
// file system fails as an environment variable says, and from strace on the real one.
//
// Both sides write what they saw, line by line, before they go on: submit.jsonl has each submission before its
// first octet leaves and again with its outcome, sink.jsonl each message that was complete and whether its 250 left
// in full, kill.jsonl the kills and starts. The judge compares these sets with each other and with the server's
// event log:
//
//	I1  what was acknowledged was delivered, or its sender was told why not: nothing is lost
//	I2  content arrives byte for byte, below one Received field
//	I3  what was refused or broken off is never delivered; what got no reply is delivered whole or not at all
//	I4  a delivery repeats only if its 250 was not read in full, or was in flight when the process died
//	I5  each entry has exactly one final event, the right one; an event told again is the same octet for octet
//	I6  a restart takes mail within 10 s, and 5 s more for each million queued
//	I7  the queue becomes empty, and nothing is attempted more than 60 s after it is due
//	G1  goroutines, descriptors and memory of a process that lives on return to where they were
//
// `make crash` runs all rows in full size; CRASH=quick takes the quick ones, ROWS some rows, RUNS sets how often
// faults are made, and SEED makes all choices of the harness again (what the machine's scheduler adds is not
// repeated). The ledgers of a run that failed are kept and named.
package crash
