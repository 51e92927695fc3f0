package mail

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func newPreparer(t testing.TB) *Preparer {
	return &Preparer{
		Kinds: DefaultKinds(), Templates: shippedTemplates(t), From: "Acme <no-reply@acme.example>",
		FromDomains: []string{"Mail.Acme.example"}, Now: func() time.Time { return noon.Add(456 * time.Nanosecond) },
		TenantDomains: func(tenant string) []string { return map[string][]string{"04711": {"nordlys.fi"}}[tenant] },
	}
}

// goodRequest is a request with everything in it.
func goodRequest() Request {
	return Request{
		Kind: "invite", To: "kari.nordmann@nordlys.fi", ToName: "Kari Nordmann", Tenant: "04711", TenantName: "Nordlys Oy",
		PersonID: "usr_123", Locale: "fi-FI", Secrets: []string{"answer", "link"}, Tags: []string{"onboarding"},
		Data: map[string]any{
			"link": "https://login.acme.example/i/Zk3vXw9QpL0sYt7RbN4mHc2Jd", "inviter": "Lars",
			"question": map[string]any{"text": "Which bird?", "answer": "the kingfisher"}, "seats": 12.0, "trial": true,
		},
		ExpiresAt: noon.Add(48 * time.Hour), IdempotencyKey: "inv-1", Metadata: map[string]string{"campaign": "autumn"},
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	m, warnings, err := newPreparer(t).Prepare(goodRequest())
	if err != nil || len(warnings) != 0 {
		t.Fatal(err, warnings)
	}
	if _, err := m.ID.Bytes(); err != nil || m.Ref != m.ID.Ref() || m.Ref == "" {
		t.Errorf("id %q, ref %q", m.ID, m.Ref)
	}
	want := Message{
		ID: m.ID, Ref: m.Ref, Kind: "invite", Tenant: "04711", TenantName: "Nordlys Oy", To: "kari.nordmann@nordlys.fi",
		ToName: "Kari Nordmann", PersonID: "usr_123", Locale: "fi", Template: "invite", Secrets: []string{"answer", "link"},
		From: "Acme <no-reply@acme.example>", Tags: []string{"onboarding"}, Metadata: map[string]string{"campaign": "autumn"},
		QueuedAt: noon, ExpiresAt: noon.Add(48 * time.Hour), SupersedeKey: "invite/04711/person/usr_123", IdempotencyKey: "inv-1",
		Data: map[string]any{
			"link": "https://login.acme.example/i/Zk3vXw9QpL0sYt7RbN4mHc2Jd", "inviter": "Lars",
			"question": map[string]any{"text": "Which bird?", "answer": "the kingfisher"}, "seats": "12", "trial": true,
		},
	}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got  %+v\nwant %+v", m, want)
	}
}

func TestPrepareFillsIn(t *testing.T) {
	t.Parallel()
	p := newPreparer(t)
	m, _, err := p.Prepare(Request{Kind: "pin", To: " Kari@Nordlys.fi", Data: map[string]any{"code": "004829"}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Template != "pin" || m.Locale != "en" || m.From != p.From || m.ExpiresAt != noon.Add(15*time.Minute) ||
		m.SupersedeKey != "pin//to/kari@nordlys.fi" || !reflect.DeepEqual(m.Secrets, []string{"code"}) {
		t.Errorf("%+v", m)
	}
}

// A number that is a code arrives as the digits that were sent, by whichever door.
func TestPrepareKeepsDigits(t *testing.T) {
	t.Parallel()
	for _, v := range []any{json.Number("1000000"), 1e6, 1000000, int64(1000000), "1000000"} {
		m, _, err := newPreparer(t).Prepare(Request{Kind: "pin", To: "a@nordlys.fi", Data: map[string]any{"pin": v}})
		if err != nil || m.Data["pin"] != "1000000" {
			t.Errorf("%T: %v, %v", v, m.Data["pin"], err)
		}
	}
}

func TestSupersedeKeyStaysWithinItsTenant(t *testing.T) {
	t.Parallel()
	p := newPreparer(t)
	key := func(tenant, person, custom string) string {
		t.Helper()
		m, _, err := p.Prepare(Request{Kind: "pin", To: "a@nordlys.fi", Tenant: tenant, PersonID: person, SupersedeKey: custom, Data: map[string]any{"pin": "004829"}})
		if err != nil {
			t.Fatal(err)
		}
		return m.SupersedeKey
	}
	seen := map[string]string{}
	for _, in := range [][3]string{{"a", "p", ""}, {"b", "p", ""}, {"a", "", ""}, {"a", "", "p"}, {"b", "", "p"}, {"a/person", "p", ""},
		{"a", "person/p", ""}, {"", "p", ""}, {"", "", ""}, {"", "", "a/p"}, {"a", "", "pin/b/person/p"}} {
		k := key(in[0], in[1], in[2])
		if other, ok := seen[k]; ok {
			t.Errorf("%q and %q share the key %q", in, other, k)
		}
		seen[k] = fmt.Sprint(in)
	}
}

// Every refusal: its type, its field, and no value of the request in it.
func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	const canary = "cAnArY7"
	long := strings.Repeat("x", 5000)
	link := func(s string) func(*Request) { return func(r *Request) { r.Data["link"] = s } }
	tests := map[string]struct {
		change func(*Request)
		kind   string
		field  string
	}{
		"unknown kind":            {func(r *Request) { r.Kind = canary }, ProblemUnknownKind, "kind"},
		"no kind":                 {func(r *Request) { r.Kind = "" }, ProblemUnknownKind, "kind"},
		"address":                 {func(r *Request) { r.To = canary }, ProblemAddressInvalid, "to"},
		"address with a header":   {func(r *Request) { r.To = "a@b.example\r\nBcc: " + canary + "@x.example" }, ProblemAddressInvalid, "to"},
		"two addresses":           {func(r *Request) { r.To = canary + "@b.example,c@d.example" }, ProblemAddressInvalid, "to"},
		"D01 name CRLF":           {func(r *Request) { r.ToName = "x\r\nBcc: " + canary }, ProblemInvalid, "to_name"},
		"D01 name LF":             {func(r *Request) { r.ToName = "x\n" + canary }, ProblemInvalid, "to_name"},
		"D01 name CR":             {func(r *Request) { r.ToName = "x\r" + canary }, ProblemInvalid, "to_name"},
		"D01 name NUL":            {func(r *Request) { r.ToName = "x\x00" + canary }, ProblemInvalid, "to_name"},
		"D01 name U+2028":         {func(r *Request) { r.ToName = "x\u2028" + canary }, ProblemInvalid, "to_name"},
		"D01 name U+0085":         {func(r *Request) { r.ToName = "x\u0085" + canary }, ProblemInvalid, "to_name"},
		"name turned around":      {func(r *Request) { r.ToName = "x\u202e" + canary }, ProblemInvalid, "to_name"},
		"name not UTF-8":          {func(r *Request) { r.ToName = canary + "\xff" }, ProblemInvalid, "to_name"},
		"name too long":           {func(r *Request) { r.ToName = canary + long }, ProblemInvalid, "to_name"},
		"tenant":                  {func(r *Request) { r.Tenant = canary + "\n" }, ProblemInvalid, "tenant"},
		"tenant name":             {func(r *Request) { r.TenantName = canary + "\u2029x" }, ProblemInvalid, "tenant_name"},
		"person id":               {func(r *Request) { r.PersonID = canary + "\x1b[31m" }, ProblemInvalid, "person_id"},
		"idempotency key":         {func(r *Request) { r.IdempotencyKey = canary + long }, ProblemInvalid, "idempotency_key"},
		"supersede key":           {func(r *Request) { r.SupersedeKey = canary + "\n" }, ProblemInvalid, "supersede_key"},
		"tag":                     {func(r *Request) { r.Tags = []string{canary + "\n"} }, ProblemInvalid, "tags"},
		"tags":                    {func(r *Request) { r.Tags = strings.Split(strings.Repeat(canary+" ", 21), " ") }, ProblemInvalid, "tags"},
		"metadata value":          {func(r *Request) { r.Metadata = map[string]string{"a": canary + "\r"} }, ProblemInvalid, "metadata.a"},
		"metadata name":           {func(r *Request) { r.Metadata = map[string]string{canary + "\r": "x"} }, ProblemInvalid, "metadata"},
		"resend of":               {func(r *Request) { r.ResendOf = canary }, ProblemInvalid, "resend_of"},
		"template":                {func(r *Request) { r.Template = canary }, ProblemTemplateUnknown, "template"},
		"template path":           {func(r *Request) { r.Template = "../" + canary }, ProblemTemplateUnknown, "template"},
		"footer is no template":   {func(r *Request) { r.Template = "footer" }, ProblemTemplateUnknown, "template"},
		"locale":                  {func(r *Request) { r.Locale = "../" + canary }, ProblemInvalid, "locale"},
		"time zone":               {func(r *Request) { r.Data["timezone"] = "../" + canary }, ProblemInvalid, "data.timezone"},
		"local time zone":         {func(r *Request) { r.Data["timezone"] = "Local" }, ProblemInvalid, "data.timezone"},
		"D16 foreign domain":      {func(r *Request) { r.From = "x@" + canary + ".example" }, ProblemInvalid, "from"},
		"D16 parent domain":       {func(r *Request) { r.From = canary + "@example" }, ProblemInvalid, "from"},
		"D16 two senders":         {func(r *Request) { r.From = canary + "@acme.example, x <a@acme.example>" }, ProblemInvalid, "from"},
		"D16 sender CRLF":         {func(r *Request) { r.From = "x\r\nBcc: " + canary + " <a@acme.example>" }, ProblemInvalid, "from"},
		"D16 reply-to CRLF":       {func(r *Request) { r.ReplyTo = "a@acme.example\r\nBcc: " + canary }, ProblemInvalid, "reply_to"},
		"D16 two reply-tos":       {func(r *Request) { r.ReplyTo = canary + "@acme.example, b@acme.example" }, ProblemInvalid, "reply_to"},
		"expired":                 {func(r *Request) { r.ExpiresAt = noon.Add(-time.Second) }, ProblemExpired, "expires_at"},
		"D17 1970":                {func(r *Request) { r.ExpiresAt = time.Unix(1, 0) }, ProblemExpired, "expires_at"},
		"expires now":             {func(r *Request) { r.ExpiresAt = noon.Add(4 * time.Second) }, ProblemExpired, "expires_at"},
		"D17 in 10 years":         {func(r *Request) { r.ExpiresAt = noon.AddDate(10, 0, 0) }, ProblemInvalid, "expires_at"},
		"D17 9999":                {func(r *Request) { r.ExpiresAt = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, ProblemInvalid, "expires_at"},
		"D12 link missing":        {func(r *Request) { delete(r.Data, "link") }, ProblemVariableMissing, "data.link"},
		"D12 no data":             {func(r *Request) { r.Data, r.Secrets = nil, nil }, ProblemVariableMissing, "data.link"},
		"D12 link blank":          {link(""), ProblemVariableMissing, "data.link"},
		"D12 link null":           {func(r *Request) { r.Data["link"] = nil }, ProblemVariableMissing, "data.link"},
		"pin missing":             {func(r *Request) { r.Template = "pin" }, ProblemVariableMissing, "data.pin"},
		"D12 javascript":          {link("javascript:alert('" + canary + "')"), ProblemInvalid, "data.link"},
		"D12 JavaScript, spaced":  {link(" \tJavaScript:" + canary), ProblemInvalid, "data.link"},
		"D12 data":                {link("data:text/html," + canary), ProblemInvalid, "data.link"},
		"D12 mailto":              {link("mailto:" + canary + "@b.example"), ProblemInvalid, "data.link"},
		"link relative":           {link("/i/" + canary), ProblemInvalid, "data.link"},
		"link without scheme":     {link("login.acme.example/" + canary), ProblemInvalid, "data.link"},
		"link without host":       {link("https:///" + canary), ProblemInvalid, "data.link"},
		"link with port alone":    {link("https://:443/" + canary), ProblemInvalid, "data.link"},
		"link with user":          {link("https://login.acme.example@" + canary + ".example/"), ProblemInvalid, "data.link"},
		"link with space":         {link("https://a.example/ " + canary), ProblemInvalid, "data.link"},
		"link with line break":    {link("https://a.example/\r\n" + canary), ProblemInvalid, "data.link"},
		"link too long":           {link("https://a.example/" + canary + long[:2100]), ProblemInvalid, "data.link"},
		"link is a list":          {func(r *Request) { r.Data["link"] = []any{"https://a.example/" + canary} }, ProblemInvalid, "data"},
		"other link, nested":      {func(r *Request) { r.Data["a"] = map[string]any{"help_url": "javascript:" + canary} }, ProblemInvalid, "data.a.help_url"},
		"D12 1 MB value":          {func(r *Request) { r.Data["x"] = canary + strings.Repeat("x", 1<<20) }, ProblemTooLarge, "data.x"},
		"many values":             {func(r *Request) { r.Data["x"] = make([]any, 300) }, ProblemTooLarge, "data.x"},
		"many large values":       {func(r *Request) { r.Data["x"] = strings.SplitAfter(long, "") }, ProblemInvalid, "data.x"},
		"large together":          {largeTogether, ProblemTooLarge, "data.x"},
		"too deep":                {func(r *Request) { r.Data["x"] = nested(4) }, ProblemInvalid, "data.x.x.x.x"},
		"10,000 deep":             {func(r *Request) { r.Data["x"] = nested(10000) }, ProblemInvalid, "data.x.x.x.x"},
		"line break in data":      {func(r *Request) { r.Data["inviter"] = "x\r\n" + canary }, ProblemInvalid, "data.inviter"},
		"U+2028 in data":          {func(r *Request) { r.Data["inviter"] = "x\u2028" + canary }, ProblemInvalid, "data.inviter"},
		"name in data":            {func(r *Request) { r.Data[canary+" {{"] = "x" }, ProblemInvalid, "data"},
		"D13 object with methods": {func(r *Request) { r.Data["inviter"] = noon }, ProblemInvalid, "data.inviter"},
		"D13 function":            {func(r *Request) { r.Data["inviter"] = func() string { return canary } }, ProblemInvalid, "data.inviter"},
		"shape":                   {func(r *Request) { r.Data["inviter"] = map[string]any{"a": "<a>", "b": strings.Repeat("x", 500)} }, ProblemInvalid, "data"},
		"secret not in data":      {func(r *Request) { r.Secrets = []string{canary} }, ProblemInvalid, "secrets"},
		"secret too short":        {func(r *Request) { r.Data["pin"] = "482" }, ProblemInvalid, "data.pin"},
		"secret too short, deep":  {func(r *Request) { r.Data["a"] = map[string]any{"code": []any{"x"}} }, ProblemInvalid, "data.a.code"},
	}
	p := newPreparer(t)
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := goodRequest()
			tt.change(&r)
			m, _, err := p.Prepare(r)
			problem, ok := errors.AsType[*Problem](err)
			if !ok {
				t.Fatalf("taken as %+v, %v", m, err)
			}
			if problem.Type != tt.kind || problem.Field != tt.field {
				t.Errorf("got %s for %q, want %s for %q: %v", problem.Type, problem.Field, tt.kind, tt.field, problem)
			}
			if problem.Status < 400 || problem.Status > 499 || problem.Title == "" || !strings.HasSuffix(problem.Detail, ".") && !strings.HasSuffix(problem.Detail, ">") {
				t.Errorf("not a problem to show: %+v", problem)
			}
			if all, _ := json.Marshal(problem); strings.Contains(strings.ToLower(string(all)), strings.ToLower(canary)) {
				t.Errorf("the problem repeats a value: %s", all)
			}
		})
	}
}

func nested(depth int) any {
	var v any = "x"
	for range depth {
		v = map[string]any{"x": v}
	}
	return v
}

func largeTogether(r *Request) {
	list := []any{}
	for range 10 {
		list = append(list, strings.Repeat("x", 4000))
	}
	r.Data["x"] = list
}

func TestPrepareTakes(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Request){
		"D12 template syntax as a value": func(r *Request) { r.Data["inviter"] = "{{.data.link}} </script>" },
		"another domain of ours":         func(r *Request) { r.From = `"Acme, Oy" <a@mail.acme.example>` },
		"expiry at the bound":            func(r *Request) { r.ExpiresAt = noon.Add(MaxLife) },
		"soonest expiry":                 func(r *Request) { r.ExpiresAt = noon.Add(minLife) },
		"expiry in another zone":         func(r *Request) { r.ExpiresAt = noon.Add(time.Hour).In(time.FixedZone("", 7200)) },
		"plain http":                     func(r *Request) { r.Data["link"] = "http://login.acme.example/x" },
		"unknown language":               func(r *Request) { r.Locale = "sv-SE" },
		"underscore":                     func(r *Request) { r.Locale = "pt_BR" },
		"time zone":                      func(r *Request) { r.Data["timezone"] = "Europe/Helsinki" },
		"three levels":                   func(r *Request) { r.Data["x"] = nested(3) },
		"NaN from Go":                    func(r *Request) { r.Data["x"] = math.NaN() },
		"Hebrew with its marks":          func(r *Request) { r.ToName = "\u200fדוד" },
		"the tenant's number is the pin": func(r *Request) { r.Tenant, r.Data["pin"] = "4711", "4711" },
		"the invite's number is its key": func(r *Request) { r.Data["link"], r.IdempotencyKey = "https://a.example/i/inv-0042", "inv-0042" },
		"the link names the address":     func(r *Request) { r.Data["link"] = "https://a.example/i/abc?m=kari.nordmann%40nordlys.fi" },
		"the link names the person":      func(r *Request) { r.Data["link"] = "https://a.example/i/Zk3vXw9QpL0sYt7RbN?user=usr_123" },
	} {
		r := goodRequest()
		change(&r)
		m, _, err := newPreparer(t).Prepare(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if m.ExpiresAt.Location() != time.UTC {
			t.Errorf("%s: the expiry is not in UTC", name)
		}
	}
}

func TestPrepareWarns(t *testing.T) {
	t.Parallel()
	r := goodRequest()
	r.To = "mailto:kari@nordly.fi"
	m, warnings, err := newPreparer(t).Prepare(r)
	if err != nil || m.To != "kari@nordly.fi" {
		t.Fatalf("%q, %v", m.To, err)
	}
	if len(warnings) != 2 || warnings[0].Code != WarnAddressTrimmed || warnings[1].Code != WarnAddressTypo || warnings[1].Suggestion != "kari@nordlys.fi" {
		t.Errorf("%+v", warnings)
	}
	r.Tenant = "another"
	if _, warnings, _ = newPreparer(t).Prepare(r); len(warnings) != 1 {
		t.Errorf("another tenant's domains are suggested: %+v", warnings)
	}
}

// Law 5: what is stored in clear holds no secret, or the request is refused.
func TestSecretsInClearFieldsAreRefused(t *testing.T) {
	t.Parallel()
	const token, pin = "Zk3vXw9QpL0sYt7RbN4mHc2Jd", "004829"
	p := newPreparer(t)
	for field, change := range map[string]func(r *Request, secret string){
		"to_name":         func(r *Request, s string) { r.ToName = "Kari " + s },
		"tenant_name":     func(r *Request, s string) { r.TenantName = "(" + s + ")" },
		"tags":            func(r *Request, s string) { r.Tags = []string{"a", s} },
		"metadata":        func(r *Request, s string) { r.Metadata = map[string]string{"a": "b " + s} },
		"idempotency_key": func(r *Request, s string) { r.IdempotencyKey = "inv-" + s },
		"supersede_key":   func(r *Request, s string) { r.SupersedeKey = s },
		"reply_to":        func(r *Request, s string) { r.ReplyTo = s + "@acme.example" },
		"from":            func(r *Request, s string) { r.From = s + "@acme.example" },
	} {
		for _, secret := range []string{token, strings.ToLower(token), pin} {
			r := goodRequest()
			r.Data["pin"] = pin
			change(&r, secret)
			_, _, err := p.Prepare(r)
			problem, ok := errors.AsType[*Problem](err)
			if !ok || problem.Field != field || problem.Type != ProblemInvalid {
				t.Errorf("%s with %q: %v", field, secret, err)
			} else if strings.Contains(problem.Error(), secret) {
				t.Errorf("the problem repeats the secret: %v", problem)
			}
		}
	}
	for field, change := range map[string]func(*Request){
		"person_id": func(r *Request) { r.PersonID = token },
		"tenant":    func(r *Request) { r.Tenant = token },
		"to":        func(r *Request) { r.To = token + "@nordlys.fi" },
		"data":      func(r *Request) { r.Data[token] = "x" },
	} {
		r := goodRequest()
		change(&r)
		_, _, err := p.Prepare(r)
		if problem, ok := errors.AsType[*Problem](err); !ok || problem.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
}

func TestPrepareWithAnOperatorsTemplate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"note.en.txt":  "subject: Note\n\n{{range .data.lines}}{{.text}}\n{{end}}{{.data.user.name}}",
		"note.en.html": `<a href="{{.data.where}}">{{.data.user.name}}</a>`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	templates, err := LoadTemplates(dir)
	if err != nil {
		t.Fatal(err)
	}
	p := newPreparer(t)
	p.Templates = templates
	line := []any{map[string]any{"text": "one"}}
	for name, tt := range map[string]struct {
		data  map[string]any
		field string // "": taken
	}{
		"good":                  {map[string]any{"lines": line, "where": "https://a.example/", "user": map[string]any{"name": "K"}}, ""},
		"without the list":      {map[string]any{"where": "https://a.example/", "user": map[string]any{"name": "K"}}, ""},
		"nested one missing":    {map[string]any{"where": "https://a.example/", "user": map[string]any{}}, "data.user.name"},
		"nested of other shape": {map[string]any{"where": "https://a.example/", "user": "K"}, "data.user.name"},
		"item without text":     {map[string]any{"lines": []any{map[string]any{}}, "where": "https://a.example/", "user": map[string]any{"name": "K"}}, "data"},
		"list of other shape":   {map[string]any{"lines": "x", "where": "https://a.example/", "user": map[string]any{"name": "K"}}, "data"},
		// No name of a link, but HTML that uses it as one.
		"unsafe link": {map[string]any{"where": "javascript:alert(1)", "user": map[string]any{"name": "K"}}, "data"},
	} {
		_, _, err := p.Prepare(Request{Kind: "invite", Template: "note", To: "a@nordlys.fi", Data: tt.data})
		problem, _ := errors.AsType[*Problem](err)
		if (err == nil) != (tt.field == "") || problem != nil && problem.Field != tt.field {
			t.Errorf("%s: %v, want a problem with %q", name, err, tt.field)
		}
	}
}

// Whatever comes, it is a message that can be rendered, or a problem.
func FuzzPrepare(f *testing.F) {
	good, err := json.Marshal(goodRequest())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"kind":"pin","to":"a@b.example","data":{"pin":1e400,"timezone":"Asia/Tokyo","a":[[[1]]]},"locale":"fi"}`))
	f.Add([]byte(`{"kind":"reset","to":"<a@b.example>","data":{"link":"HTTPS://a.example/%zz?a=b#c"},"from":"\"a\" <b@acme.example>"}`))
	p := newPreparer(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		var r Request
		if json.Unmarshal(body, &r) != nil {
			return
		}
		m, _, err := p.Prepare(r)
		if err != nil {
			if _, ok := errors.AsType[*Problem](err); !ok {
				t.Errorf("not a problem: %v", err)
			}
			return
		}
		raw, err := p.Templates.Render(&m)
		if err != nil {
			t.Fatalf("prepared, but not rendered: %v", err)
		}
		checkWire(t, raw)
		if got := readMail(t, raw); len(got.header) != 11 && len(got.header) != 12 {
			t.Errorf("the mail has %d headers", len(got.header))
		}
		if _, _, _, err := p.Templates.Preview(&m); err != nil {
			t.Errorf("no preview: %v", err)
		}
		// The queue keeps data as JSON: nothing may change on that way.
		kept, err := json.Marshal(m.Data)
		if err != nil {
			t.Fatal(err)
		}
		var data map[string]any
		if err := json.Unmarshal(kept, &data); err != nil || !reflect.DeepEqual(data, m.Data) {
			t.Errorf("data comes back as %v, not %v", data, m.Data)
		}
	})
}

func BenchmarkPrepare(b *testing.B) {
	p := newPreparer(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.Prepare(goodRequest()); err != nil {
			b.Fatal(err)
		}
	}
}
