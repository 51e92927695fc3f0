package daemon

import (
	"encoding/json"
	"net/http"

	"github.com/deliverd/deliverd/console"
	"github.com/deliverd/deliverd/deliver/smtptest"
	"github.com/deliverd/deliverd/mail"
)

// caught shows the catching server's mail to the console's pages.
type caught struct{ sink *smtptest.Sink }

func (c caught) Mails() []console.CaughtMail {
	var all []console.CaughtMail
	for m := range c.sink.Mails() {
		all = append(all, shownMail(m))
	}
	return all
}

func (c caught) Mail(number int) (console.CaughtMail, bool) {
	for m := range c.sink.Mails() {
		if m.Seq == number {
			return shownMail(m), true
		}
	}
	return console.CaughtMail{}, false
}

func shownMail(m smtptest.Mail) console.CaughtMail {
	return console.CaughtMail{Number: m.Seq, At: m.At, From: m.From, To: m.To, Hello: m.Hello, TLS: m.TLS, Raw: m.Raw}
}

// behaviourRequest tells the catching server how to treat mail to an address.
type behaviourRequest struct {
	Address   string `json:"address"`   // whole, or a pattern: "*@gone.example"
	Behaviour string `json:"behaviour"` // as smtptest.ParseBehaviour reads it: "greylist 2"
}

// catchRoutes are what `deliverd dev` has beside the API.
func (d *Daemon) catchRoutes() []console.Route {
	return []console.Route{{
		Method: "POST", Pattern: "/dev/catch", Scope: console.ScopeAdmin,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var body behaviourRequest
			err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10)).Decode(&body)
			if err == nil {
				var b smtptest.Behaviour
				if b, err = smtptest.ParseBehaviour(body.Behaviour); err == nil {
					err = d.catch.Tell(body.Address, b)
				}
			}
			if err != nil {
				writeProblem(w, &mail.Problem{Type: mail.ProblemInvalid, Title: "The catching server does not understand that",
					Status: http.StatusUnprocessableEntity, Detail: err.Error()})
				return
			}
			w.WriteHeader(http.StatusNoContent)
		}),
	}}
}

// writeProblem answers with an RFC 9457 problem.
func writeProblem(w http.ResponseWriter, p *mail.Problem) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the error is the client's, who went away
}
