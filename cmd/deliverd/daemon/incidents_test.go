package daemon

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// TestIncidentsAreNotedOnce: the service log tells of an incident's beginning and end
// once, however often and by however many nodes they are found; of one that is so old
// that its beginning is out of sight, the end only. It begins with the first key.
func TestIncidentsAreNotedOnce(t *testing.T) {
	t.Parallel()
	d, _ := open(t, smtptest.SinkOptions{}, nil)
	noted, err := d.queue.Shared(t.Context(), "incidents")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	at := func(ago time.Duration) time.Time { return now.Add(-ago).Truncate(time.Minute) }
	opened := console.Incident{ID: "inc_1", Scope: console.IncidentProvider, Name: "microsoft365", Cause: mail.CauseNetwork, Open: true, Since: at(time.Hour)}
	closed := opened
	closed.Open, closed.Until = false, at(time.Minute)
	old := console.Incident{ID: "inc_2", Scope: console.IncidentEverywhere, Cause: mail.CauseNetwork, Open: true, Since: at(incidentOld + time.Hour)}
	ended := old
	ended.ID, ended.Open, ended.Until = "inc_3", false, at(time.Minute)
	for _, list := range [][]console.Incident{{opened, old}, {opened, old}, {closed, ended}, {ended, closed}} {
		if err := d.noteIncidents(t.Context(), noted, list, now); err != nil {
			t.Fatal(err)
		}
	}
	d.serviceLog.Append(t.Context(), console.LogEntry{Act: "end of test"})
	acts := map[string]int{}
	for r, err := range d.queue.Links(t.Context(), 0) {
		if err != nil {
			t.Fatal(err)
		}
		var e console.LogEntry
		if err := json.Unmarshal(r.Data, &e); err != nil {
			t.Fatal(err)
		}
		acts[e.Act+" "+e.On]++
	}
	for act, want := range map[string]int{
		"incident.open provider microsoft365": 1, "incident.close provider microsoft365": 1,
		"incident.open everywhere": 0, "incident.close everywhere": 1, "end of test ": 1,
	} {
		if acts[act] != want {
			t.Errorf("%q is in the log %d times, want %d: %v", act, acts[act], want, acts)
		}
	}
	keys := 0
	for act, n := range acts {
		if len(act) > 8 && act[:8] == "key.made" {
			keys += n
		}
	}
	if keys != 1 {
		t.Errorf("the first key is in the log %d times: %v", keys, acts)
	}
}
