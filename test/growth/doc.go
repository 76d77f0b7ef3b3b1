// Command growth measures how the cost of the server grows with what it is given: the queue's depth, the size of
// messages, sessions, domains, recipients. It runs the real binary as a process of its own, sends with smtptest.Load,
// takes in with smtptest.Sink, and reads the server's CPU time and memory from /proc. So it runs on Linux only.
//
//	make growth              # every row, a quarter of an hour
//	make growth QUICK=1      # the same rows, shorter, in three minutes
//	make growth JOBS=deferred,deep,idle
//
// It prints Markdown, and draws a figure (docs/growth.svg) when the rows were measured. A row whose cost has grown
// faster than its input is marked. Rates depend on the machine and what else it does; costs in CPU time much less.
//
// The jobs beside the rows put the server into states that need time to reach: deferred (a million entries while no
// sink answers, then they come back), deep (ten million), idle (15,000 sessions that say nothing). Deep queues are
// filled through package spool before the server starts, each entry deferred once, and the event log is told that it
// has seen them.
package main
