package intake

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/mail"
)

// preparer is the real one, with the templates that ship.
func preparer(t testing.TB) func(*Options) {
	t.Helper()
	templates, err := mail.LoadTemplates("")
	if err != nil {
		t.Fatal(err)
	}
	p := &mail.Preparer{
		Kinds: mail.DefaultKinds(), Templates: templates, From: "Acme <no-reply@acme.example>",
		Now: func() time.Time { return noon },
	}
	return func(o *Options) { o.Prepare = p.Prepare }
}

// Rows D01 to D08, D12, D16 and D17 of hostile requests, through the whole door: each
// is refused in the field that is at fault, repeats nothing, and keeps nothing; or it
// is taken for the harmless thing that it is.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	const bad, taken = "bad", ""
	type row struct {
		name  string
		set   map[string]any // on top of a good request
		field string         // at fault; taken if ""
	}
	var rows []row
	for name, breaks := range map[string]string{
		"CRLF": "\r\nBcc: v@x.example", "LF": "\n", "CR": "\r", "NUL": "\x00", "U+2028": "\u2028", "U+0085": "\u0085",
	} {
		for _, field := range []string{"to_name", "tenant_name", "tenant", "person_id", "supersede_key", "from", "reply_to"} {
			rows = append(rows, row{"D01 " + name + " in " + field, map[string]any{field: "Kari" + breaks + "N"}, field})
		}
		rows = append(rows,
			row{"D01 " + name + " in data", map[string]any{"data": map[string]any{"link": "https://a.example/", "inviter": "L" + breaks + "s"}}, "data.inviter"},
			row{"D01 " + name + " in tags", map[string]any{"tags": []string{"a" + breaks + "b"}}, "tags"},
			row{"D01 " + name + " in metadata", map[string]any{"metadata": map[string]string{"k": "a" + breaks + "b"}}, "metadata.k"},
			row{"D02 " + name + " in to", map[string]any{"to": "a" + breaks + "b@nordlys.example"}, "to"})
	}
	for to, name := range map[string]string{
		"a@b.example> NOTIFY=NEVER <x":           "D02 parameters",
		"a b@nordlys.example":                    "D02 space",
		`"a@evil.example"@good.example`:          "D03 quoted",
		`"a> RCPT TO:<v@x"@c.example`:            "D03 quoted command",
		"=?utf-8?q?a=40evil.example=3E?=@[1.2]":  "D04 encoded word at a literal",
		"a@[127.0.0.1]":                          "D05 literal",
		"a@127.0.0.1":                            "D05 IP address",
		"a@localhost":                            "D05 localhost",
		"a@-b.example":                           "D05 hyphen first",
		"a@b_c.example":                          "D05 underscore",
		"a@xn--":                                 "D05 empty A-label",
		"a@b.example.":                           "D05 trailing dot",
		"x <a@b.example>, c@d.example":           "D06 list",
		"group: a@b.example;":                    "D06 group",
		"a(comment)@b.example":                   "D06 comment",
		strings.Repeat("a", 65) + "@b.example":   "D07 local part of 65",
		"a@" + strings.Repeat("b", 64) + ".com":  "D07 label of 64",
		"a@" + strings.Repeat("b.", 127) + "com": "D07 domain of 257",
	} {
		rows = append(rows, row{name, map[string]any{"to": to}, "to"})
	}
	data := func(name string, v any) map[string]any {
		return map[string]any{"data": map[string]any{"link": "https://a.example/i", name: v}}
	}
	rows = append(rows,
		row{"D04 encoded word as a name", map[string]any{"to": "=?utf-8?q?a=40evil.example=3E?=@good.example"}, taken},
		row{"D08 percent", map[string]any{"to": "a%b@c.example"}, taken},
		row{"D08 bang", map[string]any{"to": "a!b@c.example"}, taken},
		row{"D12 no link", map[string]any{"data": map[string]any{}}, "data.link"},
		row{"D12 empty link", data("link", ""), "data.link"},
		row{"D12 javascript", data("link", "javascript:alert(1)"), "data.link"},
		row{"D12 JavaScript with a tab", data("link", "java\tscript:alert(1)"), "data.link"},
		row{"D12 data", data("link", "data:text/html,x"), "data.link"},
		row{"D12 no host", data("link", "https:///i"), "data.link"},
		row{"D12 user as host", data("link", "https://bank.example@evil.example/"), "data.link"},
		row{"D12 template", data("inviter", "{{.data.link}}"), taken},
		row{"D12 script", data("inviter", "</script><script>alert(1)</script>"), taken},
		row{"D12 1 MB, 60 KB of it", data("inviter", strings.Repeat("x", 60_000)), "data.inviter"},
		row{"D16 domain that is not ours", map[string]any{"from": "x@" + bad + ".example"}, "from"},
		row{"D16 two senders", map[string]any{"from": "a@acme.example, b@acme.example"}, "from"},
		row{"D16 two addresses for replies", map[string]any{"reply_to": "a@acme.example, b@acme.example"}, "reply_to"},
		row{"D17 unknown kind", map[string]any{"kind": bad}, "kind"},
		row{"D17 no kind", map[string]any{"kind": nil}, "kind"},
		row{"D17 ttl 0", map[string]any{"expires_at": noon}, "expires_at"},
		row{"D17 in 1970", map[string]any{"expires_at": time.Unix(0, 0)}, "expires_at"},
		row{"D17 in 10 years", map[string]any{"expires_at": noon.AddDate(10, 0, 0)}, "expires_at"},
		row{"D17 in 9999", map[string]any{"expires_at": "9999-12-31T23:59:59Z"}, "expires_at"},
	)
	in, s := build(t, preparer(t), func(o *Options) { o.Limits.Address = Limit{Burst: -1} })
	h := mux(in)
	one := func(t *testing.T, r row) {
		request := map[string]any{
			"kind": "invite", "to": "kari@nordlys.example", "tenant": "4711", "tenant_name": "Nordlys Oy",
			"data": map[string]any{"link": "https://login.example/i/1"},
		}
		maps.Copy(request, r.set)
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		before := s.count()
		w := post(h, "/v1/messages", string(body))
		if r.field == taken {
			if w.Code != 202 || s.count() != before+1 {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			return
		}
		if w.Code == 202 {
			t.Fatalf("taken: %s", body)
		}
		p := decodeAs[mail.Problem](t, w.Body.Bytes())
		if p.Status < 400 || p.Status >= 500 || p.Field != r.field {
			t.Errorf("%d %s, want it refused in %q", w.Code, w.Body, r.field)
		}
		if s.count() != before {
			t.Error("refused, and yet kept")
		}
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) { one(t, r) })
	}
}

// A secret in any field of a request comes back in no answer, whichever way the request
// is refused.
func TestCanaryInAnswers(t *testing.T) {
	t.Parallel()
	const canary = "s3cr3t-900913"
	in, _ := build(t, preparer(t))
	h := mux(in)
	for _, f := range requestFields(&mail.Request{}) {
		for _, value := range []any{
			canary, canary + "\n", canary + strings.Repeat("x", 5000), []string{canary}, []string{canary + "\n"},
			map[string]any{"link": canary}, map[string]any{"link": "javascript:" + canary}, map[string]any{"inviter": canary},
			map[string]string{"k": canary + "\n"}, []any{1, canary}, map[string]any{"a": map[string]any{"b": canary + "\r"}},
		} {
			request := map[string]any{
				"kind": "invite", "to": "kari@nordlys.example", "tenant": "4711",
				"data": map[string]any{"link": "https://login.example/i/" + canary},
			}
			request[f.name] = value
			body, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			for _, answer := range []string{
				post(h, "/v1/messages", string(body)).Body.String(),
				post(h, "/v1/outcomes", string(body)).Body.String(),
				string(in.HandleSend(t.Context(), "login", none, body)),
			} {
				if strings.Contains(answer, canary) {
					t.Errorf("%s: %s", body, answer)
				}
			}
		}
	}
}

// BenchmarkDoor is a request's whole way through the HTTP door but for the network and
// the queue.
func BenchmarkDoor(b *testing.B) {
	in, _ := build(b, preparer(b), func(o *Options) {
		o.Limits = Limits{Tenant: Limit{Burst: -1}, Recipient: Limit{Burst: -1}, Address: Limit{Burst: -1}}
		o.Enqueue = func(_ context.Context, m *mail.Message, _ [32]byte) (mail.Receipt, error) {
			return mail.Receipt{ID: m.ID, Ref: m.Ref, State: mail.StateQueued}, nil
		}
	})
	h := mux(in)
	b.ReportAllocs()
	for b.Loop() {
		if w := post(h, "/v1/messages", good); w.Code != 202 {
			b.Fatal(w.Body)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode([]byte(good)); err != nil {
			b.Fatal(err)
		}
	}
}
