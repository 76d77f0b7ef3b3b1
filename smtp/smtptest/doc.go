// Package smtptest holds the two peers that mail software is tested against: [Sink] receives, [Load] sends.
//
// A Sink speaks ESMTP or LMTP with code of its own, so that a test of the engines beside it has an independent
// witness. It is quick enough to stand behind a load test, strict about line ends, and misbehaves as its [Script]
// says: replies by verb and recipient, delays, cut replies, dropped connections, stalls, greylisting, limits. What
// it received it counts, and on request hashes, keeps, or stores in a maildir; a callback gives every message with
// the reply it got.
//
//	sink, err := smtptest.NewSink(smtptest.SinkOptions{Script: smtptest.Script{
//		Rules: []smtptest.Rule{
//			{At: smtptest.AtRcpt, Match: "nobody@*", Reply: "550 5.1.1 no such user"},
//			{At: smtptest.AtFinal, Share: 0.01, Drop: smtptest.DropRST},
//		},
//	}})
//	go sink.Run(ctx, listener)
//
// Load sends many messages over many sessions and tells rate and latencies:
//
//	result, err := smtptest.Load(ctx, smtptest.LoadOptions{Address: "127.0.0.1:2525", Messages: 10000, Sessions: 50})
//
// [Pipe] is a connection in memory that buffers as TCP does, for tests in fake time.
//
// RFCs: 5321 (SMTP), 2033 (LMTP), 2920 (PIPELINING), 3030 (CHUNKING), 1870 (SIZE), 9422 (LIMITS).
package smtptest
