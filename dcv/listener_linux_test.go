package dcv

import (
	"net"
	"syscall"
	"testing"
)

// soReusePort is SO_REUSEPORT, which package syscall lacks on some architectures.
const soReusePort = 0xf

// TestListenOnSharedPort: a program that shares its port is left alone, too: its visitors are not ours.
func TestListenOnSharedPort(t *testing.T) {
	testBusyPort(t, func(addr string) (net.Listener, error) {
		config := net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
			var err error
			controlErr := conn.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, soReusePort, 1)
			})
			if controlErr != nil {
				return controlErr
			}
			return err
		}}
		return config.Listen(t.Context(), "tcp", addr)
	})
}
