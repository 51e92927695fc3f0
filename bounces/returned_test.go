package bounces

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

func TestReturnedEvent(t *testing.T) {
	t.Parallel()
	failed := Report{Recipient: "x@y.example", Action: ActionFailed, Host: "mx.y.example", Reply: mail.Reply{Code: 550, Text: "no"},
		Verdict: Verdict{Cause: mail.CauseBadMailbox, Hard: true, Suppress: true, Provider: "gmail"}}
	delayed := Report{Action: ActionDelayed, Verdict: Verdict{Cause: mail.CauseGreylisted, Retry: true}}
	complaint := Report{Action: ActionComplaint, Verdict: Verdict{Cause: mail.CauseComplaint}}
	delivered := Report{Action: ActionDelivered}
	id := testID()
	tests := []struct {
		name    string
		reports []Report
		id      string // "" for no event
		state   mail.State
		cause   mail.Cause
	}{
		{"failed", []Report{failed}, "returned.dsn.bad_mailbox", mail.StateReturned, mail.CauseBadMailbox},
		{"a failure counts more than a delay", []Report{delayed, delivered, failed}, "returned.dsn.bad_mailbox", mail.StateReturned, mail.CauseBadMailbox},
		{"delayed", []Report{delivered, delayed}, "delayed.dsn", mail.StateDelayed, mail.CauseGreylisted},
		{"complaint", []Report{complaint}, "complained.dsn", mail.StateComplained, mail.CauseComplaint},
		{"delivered", []Report{delivered}, "", "", ""},
		{"none", nil, "", "", ""},
	}
	for _, test := range tests {
		e, ok := Returned{Reports: test.reports}.Event(id, testNow)
		if ok != (test.id != "") {
			t.Errorf("%s: event %v", test.name, ok)
		}
		if !ok {
			continue
		}
		if e.ID != string(id)+"."+test.id || e.State != test.state || e.Cause != test.cause || e.Message != id || e.Ref != id.Ref() || !e.At.Equal(testNow) || e.To != "" {
			t.Errorf("%s: %+v", test.name, e)
		}
	}
	free := failed
	free.Reply = mail.Reply{Text: "see https://login.example/secret"}
	if e, _ := (Returned{Reports: []Report{free}}).Event(id, testNow); e.Evidence.Reply != nil {
		t.Errorf("an event keeps free text: %+v", e.Evidence.Reply)
	}
	e, _ := Returned{Reports: []Report{failed}}.Event(id, testNow)
	if !e.Suppress || e.Evidence.Host != "mx.y.example" || e.Evidence.Provider != "gmail" || e.Evidence.Reply.String() != "550 no" {
		t.Errorf("evidence of %+v: %+v", e, e.Evidence)
	}
}

// The document has the fields of the contract, reports as an array always.
func TestExplainedDocument(t *testing.T) {
	t.Parallel()
	reply, err := json.Marshal(ExplainReply("550 5.1.1 <kari@nordlys.example>: User unknown", "en"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"kind":"reply","reports":[{"recipient":"","action":"failed","status":"5.1.1","code":550,"cause":"bad_mailbox","hard":true,"suppress":true,"retry":false,"who_acts":"person","plain":"The mail server says that the address does not exist.","next_step":`
	if !strings.HasPrefix(string(reply), want) {
		t.Errorf("got  %s\nwant %s", reply, want)
	}
	doc := ExplainMail([]byte(dsnText), "fi")
	if doc.Kind != "bounce" || len(doc.Reports) != 1 || doc.Reports[0].Recipient != "someone.else@example.net" || doc.Reports[0].Action != ActionFailed ||
		!strings.Contains(doc.Reports[0].Plain, "someone.else@example.net") || !strings.Contains(doc.Reports[0].Plain, "(example.net)") {
		t.Errorf("document %+v", doc)
	}
	none, err := json.Marshal(ExplainMail([]byte("Subject: hello\n\nhello\n"), "en"))
	if err != nil || string(none) != `{"kind":"not-a-bounce","reports":[]}` {
		t.Errorf("got %s, %v", none, err)
	}
	wait := ExplainReply("451 4.7.1 Greylisted, try again in 5 minutes", "en").Reports[0]
	if wait.RetryAfter != 300 || !wait.Retry || wait.WhoActs != mail.ActNobody {
		t.Errorf("report %+v", wait)
	}
	delivered := ExplainMail([]byte(strings.Replace(dsnText, "Action: failed", "Action: delivered", 1)), "en").Reports[0]
	if delivered.Cause != "" || !strings.Contains(delivered.Plain, "put the message into the mailbox someone.else@example.net") {
		t.Errorf("report %+v", delivered)
	}
	if !slices.Contains(mail.Causes[:], mail.CauseComplaint) {
		t.Error("complaint is no cause")
	}
}
