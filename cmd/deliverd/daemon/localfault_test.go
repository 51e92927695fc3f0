package daemon

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/deliver"
	"github.com/deliverd/deliverd/mail"
)

// What our own side gets wrong is counted where an operator looks, and costs the
// message nothing.
func TestLocalFaultsAreCounted(t *testing.T) {
	t.Parallel()
	d := &Daemon{metrics: newMetrics("test")}
	own, err := deliver.New(deliver.Options{
		Hello: "mail.acme.example", ReturnPath: func(mail.ID) string { return "" },
		Render: func(*mail.Message) ([]byte, error) { return []byte("From: a@acme.example\r\n\r\n"), nil },
		Plan:   func(context.Context, string) (deliver.Plan, error) { return deliver.Plan{}, errors.New("no relay") },
	})
	if err != nil {
		t.Fatal(err)
	}
	d.settings.Store(&settings{deliverer: own})
	if o := d.attempt(t.Context(), &mail.Attempt{Message: mail.Message{To: "kari@nordlys.example"}}); o.State != "" || o.Local == "" {
		t.Fatalf("got %+v", o)
	}
	w := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if !strings.Contains(w.Body.String(), `deliverd_local_faults_total{stage="dns"} 1`) {
		t.Error("it is not counted")
	}
}
