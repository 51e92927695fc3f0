package daemon

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// diskSpace returns what is free for us where a directory is, and the size of it all,
// in bytes.
func diskSpace(dir string) (free, size uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, err
	}
	return s.Bavail * uint64(s.Bsize), s.Blocks * uint64(s.Bsize), nil
}

// clock says whether the kernel believes its clock. A PIN of 15 minutes on a clock
// that is 10 minutes wrong is late or refused for no reason that anybody sees.
func (x *examination) clock() {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		x.say("clock", FindingWarn, "can't ask the kernel about its clock: "+err.Error(), "")
	case state == unix.TIME_ERROR || t.Status&unix.STA_UNSYNC != 0:
		x.say("clock", FindingWarn, "the clock is not synchronised; it says "+time.Now().UTC().Format(time.RFC3339),
			"run chrony or systemd-timesyncd: expiry times are only as right as the clock")
	default:
		x.say("clock", FindingOK, fmt.Sprintf("synchronised, within %s", time.Duration(t.Maxerror)*time.Microsecond), "")
	}
}
