//go:build !linux

package crash

func (d *disk) cutPower() error { return Skip("only Linux can cut the power of a mounted file system") }
