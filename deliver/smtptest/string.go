package smtptest

import "strconv"

// String writes a behaviour as ParseBehaviour reads it.
func (b Behaviour) String() string {
	var s string
	switch {
	case b.Greylist > 0:
		s = "greylist " + strconv.Itoa(b.Greylist)
	case b.Reply != "":
		s = "refuse " + b.Reply
	case b.Lose:
		return "lose"
	case b.Vanish:
		s = "vanish"
	case b.Stall:
		s = "stall"
	case b.Delay > 0:
		s = "delay " + b.Delay.String()
	default:
		return "accept"
	}
	if b.Stage == "" || b.Stage == StageRcpt {
		return s
	}
	return s + " at " + string(b.Stage)
}
