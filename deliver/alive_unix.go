//go:build unix

package deliver

import (
	"net"
	"syscall"
)

// quiet reports whether a connection is open and the other side has sent nothing
// that was not read. It looks without taking or waiting; of a connection that is no
// socket (a pipe) it can't tell, and reports true.
func quiet(c net.Conn) bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	silent := false
	err = rc.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		// Nothing to read is the one good answer: bytes are too much said, and no bytes
		// without an error is the end of the connection.
		silent = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK || err == syscall.EINTR
	})
	return err == nil && silent
}
