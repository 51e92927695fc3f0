//go:build !linux

package systemd

// monotonicMicros: there is no systemd here that would ask.
func monotonicMicros() int64 { return 0 }
