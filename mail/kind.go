package mail

import "time"

// DefaultKinds returns the kinds that ship: "pin", "reset" and "invite". The map is
// the caller's own, to change by configuration.
//
// The waits grow the way greylisting servers and short outages ask for: most
// greylists open after 1 to 5 minutes, and a PIN that is not there within 15 is of
// no use.
func DefaultKinds() map[string]Kind {
	const s, m, h = time.Second, time.Minute, time.Hour
	return map[string]Kind{
		"pin": {
			Name: "pin", Lane: 1, ValidFor: 15 * m, Supersede: true,
			Retries: []time.Duration{10 * s, 30 * s, 1 * m, 2 * m, 3 * m, 5 * m},
		},
		"reset": {
			Name: "reset", Lane: 2, ValidFor: 2 * h, Supersede: true,
			Retries: []time.Duration{30 * s, 1 * m, 3 * m, 6 * m, 11 * m, 16 * m, 30 * m},
		},
		"invite": {
			Name: "invite", Lane: 3, ValidFor: 7 * 24 * h, Supersede: true, ResendSame: true,
			Retries: []time.Duration{1 * m, 3 * m, 6 * m, 11 * m, 16 * m, 30 * m, 1 * h, 2 * h, 4 * h, 6 * h},
		},
	}
}
