// Package egress is where mail leaves the machine: it makes connections, and it keeps the sessions that can be used
// again.
//
// A [Dialer] connects to the address it was given and to no other. Addresses that came out of DNS are checked against a
// policy (no loopback, no private networks, see [dns.Unusable]) when they are chosen, and once more by the socket's
// control hook right before the connection is made, so that the address checked is the address dialled. Two addresses
// of one host are raced: if the first does not answer within a moment the second is tried beside it (the idea of RFC
// 8305).
//
// A [Pool] keeps idle sessions by path: source and site. The one used last is taken first, so that under falling load
// the others grow old and are closed. Sessions are bounded in number, idle time, age and transactions.
package egress
