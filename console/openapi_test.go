package console

import (
	"encoding/json"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/deliverd/deliverd/dnscheck"
	"github.com/deliverd/deliverd/mail"
)

// elsewhere are the doors that other packages have, and the document describes too:
// their own tests, and the program's, hold them against the code.
var elsewhere = []string{
	"POST /v1/messages", "POST /v1/messages:validate", "POST /v1/outcomes", "POST /v1/bounces", "POST /v1/trace", "GET /v1/tls", "GET /v1/backup", "GET /healthz", "GET /readyz", "GET /metrics",
}

type openAPIDocument struct {
	OpenAPI string
	Paths   map[string]map[string]struct {
		Security   []map[string][]Scope
		Parameters []struct{ Name, In string }
		Responses  map[string]any
	}
	Components struct {
		Schemas map[string]struct {
			Properties map[string]struct {
				Type string
				Ref  string `json:"$ref"`
			}
			Required []string
		}
		Responses, SecuritySchemes map[string]any
	}
}

func document(t *testing.T) openAPIDocument {
	t.Helper()
	var d openAPIDocument
	if err := json.Unmarshal(openAPI, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenAPIHasEveryRoute(t *testing.T) {
	t.Parallel()
	d := document(t)
	routes := map[string]Scope{}
	all := append(newSite(t).api.Routes(), new(Domains).Routes()...)
	for _, r := range append(all, new(SignIn).apiRoutes()...) {
		if r.Pattern != "/status" && r.Pattern != "/d/{share}" && r.Pattern != "/domain.css" { // for people
			routes[r.Method+" "+r.Pattern] = r.Scope.issued()
		}
	}
	for path, methods := range d.Paths {
		for method, op := range methods {
			name := strings.ToUpper(method) + " " + path
			var scope Scope
			if len(op.Security) > 0 {
				scope = op.Security[0]["token"][0]
			}
			want, ours := routes[name]
			switch {
			case ours && scope != want:
				t.Errorf("%s: scope %q, the route wants %q", name, scope, want)
			case !ours && !slices.Contains(elsewhere, name):
				t.Errorf("%s: there is no such route", name)
			}
			delete(routes, name)
			var inPath []string
			for _, p := range op.Parameters {
				if p.In == "path" {
					inPath = append(inPath, "{"+p.Name+"}")
				}
			}
			if want := regexp.MustCompile(`\{[a-z]+\}`).FindAllString(path, -1); !slices.Equal(inPath, want) {
				t.Errorf("%s: path parameters %v, want %v", name, inPath, want)
			}
		}
	}
	for name := range routes {
		t.Errorf("%s is not described", name)
	}
}

// The schemas say what the types say.
func TestOpenAPIHasEveryField(t *testing.T) {
	t.Parallel()
	d := document(t)
	for _, v := range []any{
		mail.Request{}, mail.Receipt{}, mail.Problem{}, mail.SuppressionNotice{}, mail.Warning{}, mail.Event{}, mail.Evidence{}, mail.Exchange{}, mail.Try{},
		mail.TLS{}, mail.Reply{}, mail.Suppression{}, Message{}, Summary{}, Line{}, Attempt{}, Messages{}, Events{}, Reason{},
		Person{}, People{}, PersonStory{}, Day{}, DayLine{}, ReplyText{},
		Incidents{}, Incident{}, Wider{}, Status{}, StatusIncident{}, StatusWindow{}, Queue{}, Waiting{}, Pause{}, QueueAct{}, Suppressions{}, SuppressionRequest{},
		ResendRequest{}, Resent{}, Windows{}, ShownWindow{}, Occurrence{}, WindowRequest{}, WindowRemoval{}, Token{}, TokenRequest{}, NewToken{}, TokenList{}, LoginLinkRequest{}, LoginLink{}, SessionList{}, Session{}, EndedSessions{}, LogPage{}, LogEntry{},
		Destination{}, Trouble{},
		DomainReport{}, dnscheck.Product{}, dnscheck.Finding{}, dnscheck.Advice{}, dnscheck.ClientAdvice{}, dnscheck.History{},
		dnscheck.Conversation{}, dnscheck.Change{}, Share{}, ShareRequest{},
	} {
		name := reflect.TypeOf(v).Name()
		schema, ok := d.Components.Schemas[name]
		if !ok {
			t.Errorf("%s is not described", name)
			continue
		}
		fields := jsonFields(reflect.TypeOf(v))
		for field, typ := range fields {
			p, ok := schema.Properties[field]
			if !ok {
				t.Errorf("%s.%s is not described", name, field)
			} else if want := jsonType(typ); p.Ref == "" && p.Type != want {
				t.Errorf("%s.%s is described as %q, want %q", name, field, p.Type, want)
			}
		}
		for field := range schema.Properties {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s.%s: there is no such field", name, field)
			}
		}
		for _, field := range schema.Required {
			if _, ok := fields[field]; !ok {
				t.Errorf("%s requires %s, which is no field", name, field)
			}
		}
	}
}

func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			for n, inner := range jsonFields(f.Type) {
				fields[n] = inner
			}
		case name != "-":
			fields[name] = f.Type
		}
	}
	return fields
}

func jsonType(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time](), t == reflect.TypeFor[mail.EnhancedCode]():
		return "string"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "array"
	case reflect.Map, reflect.Struct:
		return "object"
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int64, reflect.Uint64:
		return "integer"
	case reflect.Float64:
		return "number"
	}
	return "string"
}

// Every reference in the document leads somewhere, and every schema is referred to.
func TestOpenAPIReferences(t *testing.T) {
	t.Parallel()
	d := document(t)
	used := map[string]bool{}
	for _, m := range regexp.MustCompile(`"\$ref": "#/components/(schemas|responses)/(\w+)"`).FindAllSubmatch(openAPI, -1) {
		section, name := string(m[1]), string(m[2])
		_, isSchema := d.Components.Schemas[name]
		_, isResponse := d.Components.Responses[name]
		if section == "schemas" && !isSchema || section == "responses" && !isResponse {
			t.Errorf("%s/%s: there is no such thing", section, name)
		}
		used[name] = true
	}
	for name := range d.Components.Schemas {
		if !used[name] {
			t.Errorf("schema %s is not used", name)
		}
	}
	for _, c := range mail.Causes {
		if !strings.Contains(string(openAPI), `"`+string(c)+`"`) {
			t.Errorf("cause %s is not described", c)
		}
	}
}
