// Package limits counts what each sender hands in and says when it is too much: messages, recipients, octets and
// different recipients, in a minute, an hour and a day, for each tenant, each credential and each client address.
//
//	l, err := limits.New(limits.Options{Store: db, Config: limits.Config{...}})
//	go l.Run(ctx)                               // writes what hours and days have counted to the store, now and then
//	taken, refusal := l.Take(sets, limits.Amount{Messages: 1, Recipients: 3, Bytes: 10_000, Unique: hashes})
//	if refusal != nil { ... }                   // refusal says which limit, how much of it is used and when there is room
//	if notAccepted { taken.Undo() }
//
// Windows slide: a minute is counted in parts of ten seconds, an hour in parts of five minutes, a day in hours; what counts is the
// part that runs and as many before it as make the span. So a limit is never exceeded in any minute, hour or day, and room comes
// back at most one part late. Different recipients are counted exactly up to 1024, and with an error of a few percent
// beyond.
//
// Memory is bounded: of each kind of sender the least recently seen are forgotten first. What hours and days have counted
// survives a restart, but for the last minute before a crash.
//
// [Bandwidth] paces octets per second: who has taken more than its share waits before the next message.
package limits
