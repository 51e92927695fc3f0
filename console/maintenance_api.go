package console

import (
	"context"
	"net/http"
	"time"
)

// ShownWindow is a window as the API shows it.
type ShownWindow struct {
	Window
	Next *Occurrence `json:"next,omitempty"` // the one that is on, or the next; none if it is over
}

// Windows is the answer to GET /v1/maintenance.
type Windows struct {
	Windows []ShownWindow `json:"windows"`
}

// WindowRequest is the body of POST /v1/maintenance.
type WindowRequest struct {
	Kinds  []string  `json:"kinds,omitempty"`
	From   time.Time `json:"from,omitzero"`
	Until  time.Time `json:"until,omitzero"`
	Repeat string    `json:"repeat,omitempty"`
	Title  string    `json:"title,omitempty"`
	Reason string    `json:"reason"`
}

// WindowRemoval is what DELETE /v1/maintenance wants, in the query or in a body.
type WindowRemoval struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

func (a *API) listWindows(w http.ResponseWriter, r *http.Request, _ *Principal) error {
	shown, err := a.ShownWindows(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, Windows{shown})
	return nil
}

// ShownWindows returns the windows with their next occurrences.
func (a *API) ShownWindows(ctx context.Context) ([]ShownWindow, error) {
	windows, err := a.Calendar.List(ctx)
	if err != nil {
		return nil, err
	}
	shown := make([]ShownWindow, len(windows))
	for i := range windows {
		shown[i] = a.shownWindow(windows[i])
	}
	return shown, nil
}

func (a *API) shownWindow(w Window) ShownWindow {
	s := ShownWindow{Window: w}
	if o, ok := w.Next(a.now()); ok {
		s.Next = &o
	}
	return s
}

func (a *API) addWindow(w http.ResponseWriter, r *http.Request, by *Principal) error {
	if err := everybodys(by); err != nil {
		return err
	}
	var body WindowRequest
	if err := decode(w, r, &body); err != nil {
		return err
	}
	made, err := a.PlanMaintenance(r, by, body)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, a.shownWindow(made))
	return nil
}

// PlanMaintenance takes a window in, as a page or a request asks for it.
func (a *API) PlanMaintenance(r *http.Request, by *Principal, body WindowRequest) (Window, error) {
	if err := everybodys(by); err != nil {
		return Window{}, err
	}
	reason, err := checkReason(body.Reason)
	if err != nil {
		return Window{}, err
	}
	made, err := a.Calendar.Add(r.Context(), Window{
		Kinds: body.Kinds, From: body.From, Until: body.Until, Repeat: body.Repeat, Title: body.Title, Reason: reason, By: by.Name,
	})
	if err == nil {
		a.acted(r, by, "maintenance.add", made.ID, reason)
	}
	return made, err
}

func (a *API) removeWindow(w http.ResponseWriter, r *http.Request, by *Principal) error {
	q := r.URL.Query()
	body := WindowRemoval{ID: q.Get("id"), Reason: q.Get("reason")}
	if r.ContentLength != 0 {
		if err := decode(w, r, &body); err != nil {
			return err
		}
	}
	if err := a.EndMaintenance(r, by, body); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// EndMaintenance removes a window, as a page or a request asks for it.
func (a *API) EndMaintenance(r *http.Request, by *Principal, body WindowRemoval) error {
	if err := everybodys(by); err != nil {
		return err
	}
	reason, err := checkReason(body.Reason)
	if err != nil {
		return err
	}
	if err := a.Calendar.Remove(r.Context(), body.ID); err != nil {
		return err
	}
	a.acted(r, by, "maintenance.remove", body.ID, reason)
	return nil
}

// everybodys refuses those who are bound to tenants: a window holds everybody's mail.
func everybodys(by *Principal) error {
	if !by.seesAll() {
		return notAllowed("A maintenance window holds every tenant's mail, and you act for some.")
	}
	return nil
}

// publicAhead is how far ahead the public status tells of windows.
const publicAhead = 24 * time.Hour

// publicWindows are the windows that the public status tells of.
func (a *API) publicWindows(ctx context.Context, w words) ([]StatusWindow, error) {
	windows, err := a.Calendar.List(ctx)
	if err != nil {
		return nil, err
	}
	public := []StatusWindow{}
	for i := range windows {
		o, ok := windows[i].Next(w.now)
		if !ok || o.From.Sub(w.now) > publicAhead {
			continue
		}
		title := windows[i].Title
		if title == "" {
			title = w.say("maintenance.title")
		}
		public = append(public, StatusWindow{
			Title: title, Now: o.On, From: o.From, Until: o.Until,
			Text: w.say("maintenance.text", "from", w.clock(o.From), "until", w.clock(o.Until)),
		})
	}
	return public, nil
}
