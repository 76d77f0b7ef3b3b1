//go:build !linux

package httpapi

import "net"

// peerUser returns nothing: this system does not tell.
func peerUser(net.Conn) string { return "" }
