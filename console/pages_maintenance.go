package console

import (
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// maintenancePart is what the page of delays shows of maintenance, and the form that is
// open: one to plan a window, or one to remove one.
type maintenancePart struct {
	Windows []plannedWindow
	Plan    *planForm
	End     *endForm
	Days    []repeatDay
	Kinds   []string
}

// plannedWindow is a window with its words.
type plannedWindow struct {
	ShownWindow
	Again string // "weekdays 13:00–13:30 Europe/Helsinki"; "" for one that is once
}

// planForm is a window as somebody fills it in. Times are in the page's own zone.
type planForm struct {
	Kinds             []string
	When              string // once or repeat
	From, Until       string // as formTime
	Days, Start, Stop string
	Zone              string
	Title, Reason     string
}

type endForm struct {
	ID, Reason string
	Window     *plannedWindow // nil if it is gone
}

// formTime is how browsers write a time without a zone (HTML, datetime-local).
const formTime = "2006-01-02T15:04"

// repeatDay are days that a form offers, and their words.
type repeatDay struct{ Value, Text string }

var repeatDays = []repeatDay{
	{"daily", "every day"}, {"weekdays", "weekdays"}, {"weekends", "weekends"}, {"mon", "Mondays"}, {"tue", "Tuesdays"}, {"wed", "Wednesdays"},
	{"thu", "Thursdays"}, {"fri", "Fridays"}, {"sat", "Saturdays"}, {"sun", "Sundays"},
}

// Has reports whether a kind was chosen.
func (f *planForm) Has(kind string) bool { return slices.Contains(f.Kinds, kind) }

// maintenance is what the page shows; nil for whoever acts for some tenants only, as a
// window holds everybody's mail.
func (p *Pages) maintenance(r *http.Request, by *Principal) (*maintenancePart, error) {
	if p.api.Calendar == nil || !by.seesAll() {
		return nil, nil
	}
	windows, err := p.api.ShownWindows(r.Context())
	if err != nil {
		return nil, err
	}
	lang := langOfPage(r)
	part := &maintenancePart{Kinds: slices.Sorted(maps.Keys(p.with.Kinds))}
	for _, d := range repeatDays {
		part.Days = append(part.Days, repeatDay{d.Value, pageWord(lang, d.Text)})
	}
	for _, w := range windows {
		part.Windows = append(part.Windows, plannedWindow{w, part.again(w.Repeat)})
	}
	return part, nil
}

// again says when a window comes again: its days in words, where there are words.
func (m *maintenancePart) again(repeat string) string {
	days, rest, _ := strings.Cut(repeat, " ")
	for _, d := range m.Days {
		if d.Value == strings.ToLower(days) {
			return d.Text + " " + rest
		}
	}
	return repeat
}

// find returns the window of an id; nil if there is none.
func (m *maintenancePart) find(id string) *plannedWindow {
	if i := slices.IndexFunc(m.Windows, func(w plannedWindow) bool { return w.ID == id }); i >= 0 {
		return &m.Windows[i]
	}
	return nil
}

// newPlan is the form before somebody fills it in: the next whole hour, for half an
// hour.
func (p *Pages) newPlan() *planForm {
	zone := p.zone()
	from := p.api.now().In(zone).Truncate(time.Hour).Add(time.Hour)
	f := &planForm{When: "once", From: from.Format(formTime), Until: from.Add(30 * time.Minute).Format(formTime), Days: "weekdays", Start: "13:00", Stop: "13:30"}
	if zone != time.Local {
		f.Zone = zone.String()
	}
	return f
}

func (p *Pages) zone() *time.Location {
	if p.api.Zone == nil {
		return time.UTC
	}
	return p.api.Zone
}

// planned reads the form that came.
func planned(form url.Values) *planForm {
	return &planForm{
		Kinds: form["kinds"], When: form.Get("when"), From: form.Get("from"), Until: form.Get("until"),
		Days: form.Get("days"), Start: form.Get("start"), Stop: form.Get("stop"), Zone: strings.TrimSpace(form.Get("zone")),
		Title: strings.TrimSpace(form.Get("title")), Reason: form.Get("reason"),
	}
}

// request is what the form asks for.
func (f *planForm) request(zone *time.Location) (WindowRequest, error) {
	w := WindowRequest{Kinds: f.Kinds, Title: f.Title, Reason: f.Reason}
	if f.When == "repeat" {
		w.Repeat = f.Days + " " + f.Start + "–" + f.Stop + " " + f.Zone
		return w, nil
	}
	var err error
	if w.From, err = time.ParseInLocation(formTime, f.From, zone); err != nil {
		return w, invalid("from", "Say from when, with date and time.")
	}
	if w.Until, err = time.ParseInLocation(formTime, f.Until, zone); err != nil {
		return w, invalid("until", "Say until when, with date and time.")
	}
	return w, nil
}

// actOnMaintenance plans a window, or removes one.
func (p *Pages) actOnMaintenance(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if p.api.Calendar == nil {
		return ErrNotFound
	}
	if err := parseForm(w, r); err != nil {
		return err
	}
	var open delaysForms
	var err error
	done := "maintenance.add"
	if id := r.PostForm.Get("window"); id != "" {
		done, open.end = "maintenance.remove", &endForm{ID: id, Reason: r.PostForm.Get("reason")}
		err = p.api.EndMaintenance(r, by, WindowRemoval{ID: id, Reason: open.end.Reason})
	} else {
		open.plan = planned(r.PostForm)
		var asked WindowRequest
		if asked, err = open.plan.request(p.zone()); err == nil {
			_, err = p.api.PlanMaintenance(r, by, asked)
		}
	}
	if err != nil {
		open.problem = asProblem(r.Context(), p.api.logger(), err)
		return p.showDelays(w, r, by, open.problem.Status, open)
	}
	http.Redirect(w, r, "/delays?"+url.Values{"done": {done}}.Encode(), http.StatusSeeOther)
	return nil
}

// delaysForms is what of the page of delays somebody fills in, at most one, and why it
// was not taken.
type delaysForms struct {
	act     *delayAct
	plan    *planForm
	end     *endForm
	problem *mail.Problem
}

// open reports whether there is one: then nothing may change below the hands.
func (f *delaysForms) open() bool { return f.act != nil || f.plan != nil || f.end != nil }
