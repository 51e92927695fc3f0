package intake

import (
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/deliverd/deliverd/mail"
)

func TestDecodeTakesWhatRequestsSay(t *testing.T) {
	t.Parallel()
	r, err := Decode([]byte(` {"kind":"invite","to":"kari@nordlys.example","to_name":"Kari \ud83d\ude00 \u00c5",
		"tenant":"04711","tenant_name":null,"data":{"code":123456789012345,"deep":[{"a":[1.50,true,null]}],"" : ""},
		"secrets":["link"],"expires_at":"2026-11-26T15:00:00+02:00","tags":[],"metadata":{"k":"v"}}` + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	if r.ToName != "Kari 😀 Å" || r.Tenant != "04711" || r.TenantName != "" || r.Metadata["k"] != "v" {
		t.Errorf("decoded %+v", r)
	}
	if got := r.ExpiresAt.UTC().Format("15:04"); got != "13:00" {
		t.Errorf("expires_at at %s UTC, want 13:00", got)
	}
	// A code of digits in a template must come out as those digits, not as 1.2e+14.
	if got := r.Data["code"]; got != json.Number("123456789012345") {
		t.Errorf("code is %T %v, want its digits kept", got, got)
	}
}

// Every field of a request can be sent, and has a place in the hash or a reason not
// to.
func TestEveryFieldOfARequestIsKnown(t *testing.T) {
	t.Parallel()
	names := func(v any) map[string]bool {
		m := map[string]bool{}
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name != "-" { // deliverd's own, not a caller's
				m[name] = true
			}
		}
		return m
	}
	request, hashed := names(mail.Request{}), names(meaning{})
	for _, f := range requestFields(&mail.Request{}) {
		if !request[f.name] {
			t.Errorf("the decoder takes %q, which mail.Request does not have", f.name)
		}
		delete(request, f.name)
	}
	for name := range request {
		t.Errorf("mail.Request has %q, which the decoder refuses", name)
	}
	for name := range names(mail.Request{}) {
		if !hashed[name] && name != "idempotency_key" { // the key is what the hash is kept under
			t.Errorf("%q makes no difference to the request hash", name)
		}
	}
}

// D09: bodies that are no JSON object of ours are refused, with the byte.
func TestD09DecodeRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 10_000)
	for _, c := range []struct {
		name, body string
		field      string // of the problem
		says       string // in its detail
	}{
		{"0 bytes", ``, "", "At byte 0: the body has to be a JSON object"},
		{"1 byte", `{`, "", "At byte 1: a name in double quotes"},
		{"a list", `[]`, "", "At byte 0"},
		{"a string", `"x"`, "", "At byte 0"},
		{"byte order mark", "\xef\xbb\xbf{}", "", "byte order mark"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "", "UTF-8, at byte 0"},
		{"invalid UTF-8", "{\"to\":\"a\xc3\"}", "", "UTF-8, at byte 8"},
		{"overlong UTF-8", "{\"to\":\"\xc0\xae\"}", "", "UTF-8, at byte 7"},
		{"surrogate in UTF-8", "{\"to\":\"\xed\xa0\x80\"}", "", "UTF-8, at byte 7"},
		{"half a pair", `{"to":"\ud800"}`, "to", "At byte 7: this is half of a surrogate pair"},
		{"half a pair and more", `{"to":"\ud800\n"}`, "to", "half of a surrogate pair"},
		{"two high halves", `{"to":"\ud800\ud800"}`, "to", "half of a surrogate pair"},
		{"low half", `{"to":"\udc00"}`, "to", "half of a surrogate pair"},
		{"short \\u", `{"to":"\u12"}`, "to", `\u needs four`},
		{"\\u at the end", `{"to":"\u1`, "to", `\u needs four`},
		{"\\u with a sign", `{"to":"\u+123"}`, "to", `\u needs four`},
		{"unknown escape", `{"to":"\x41"}`, "to", "no escape"},
		{"raw newline", "{\"to\":\"a\nb\"}", "to", "At byte 8: a control character"},
		{"raw NUL", "{\"to\":\"a\x00b\"}", "to", "control character"},
		{"no end of string", `{"to":"abc`, "to", "At byte 6: this string has no end"},
		{"depth 10,000", `{"data":{"a":` + deep, "data", "more than 10 deep"},
		{"depth 10,000 in an unknown field", `{"x":` + deep, "", "no such field"},
		{"depth 11", `{"data":{"a":` + strings.Repeat("[", 9) + strings.Repeat("]", 9) + `}}`, "data", "more than 10 deep"},
		{"name twice", `{"to":"a@b.example","to":"c@d.example"}`, "", "At byte 20: this name was there before"},
		{"name twice, escaped", `{"to":"a@b.example","\u0074o":"c@d.example"}`, "", "there before"},
		{"name twice in data", `{"data":{"link":"a","link":"b"}}`, "data", "At byte 20: this name"},
		{"name twice deep in data", `{"data":{"a":[{"x":1,"x":2}]}}`, "data", "there before"},
		{"huge number", `{"data":{"n":1e999}}`, "data", "write it as a string"},
		{"exponent", `{"data":{"n":1E2}}`, "data", "write it as a string"},
		{"digits that get lost", `{"data":{"n":9007199254740993}}`, "data", "write it as a string"},
		{"fraction that gets lost", `{"data":{"n":0.1000000000000000055}}`, "data", "write it as a string"},
		{"leading zero", `{"data":{"code":012345}}`, "data", "a code with leading zeros is a string"},
		{"leading zero of two", `{"data":{"code":01}}`, "data", "leading zeros"},
		{"plus", `{"data":{"n":+1}}`, "data", "a value is expected"},
		{"minus alone", `{"data":{"n":-}}`, "data", "no number"},
		{"point at the end", `{"data":{"n":1.}}`, "data", "no number"},
		{"NaN", `{"data":{"n":NaN}}`, "data", "a value is expected"},
		{"trailing object", `{}{}`, "", "At byte 2: something follows"},
		{"trailing NUL", "{}\x00", "", "At byte 2: something follows"},
		{"trailing comma", `{"to":"x",}`, "", "a name in double quotes"},
		{"trailing comma in a list", `{"tags":["x",]}`, "tags", "a value is expected"},
		{"comment", `{/**/}`, "", "a name in double quotes"},
		{"single quotes", `{'to':'x'}`, "", "a name in double quotes"},
		{"no colon", `{"to" "x"}`, "", "a colon"},
		{"no comma", `{"to":"x" "kind":"y"}`, "", "a comma or a closing brace"},
		{"no comma in a list", `{"tags":["x" "y"]}`, "tags", "a comma or a closing bracket"},
		{"wrong word", `{"to":nul}`, "to", "a value is expected"},
		{"string for object", `{"data":"x"}`, "data", "At byte 8: this has to be an object"},
		{"number for string", `{"tenant":4711}`, "tenant", "At byte 10: this has to be a string"},
		{"string for list", `{"tags":"x"}`, "tags", "a list of strings"},
		{"number in a list", `{"tags":[1]}`, "tags", "a list of strings"},
		{"number in metadata", `{"metadata":{"a":1}}`, "metadata", "an object of strings"},
		{"no time", `{"expires_at":"tomorrow"}`, "expires_at", "RFC 3339"},
		{"no time zone", `{"expires_at":"2026-11-26T13:00:00"}`, "expires_at", "RFC 3339"},
		{"number for time", `{"expires_at":1795698000}`, "expires_at", "RFC 3339"},
		{"misspelled", `{"tenantName":"x"}`, "", "At byte 1: there is no such field; the nearest that is known is tenant_name"},
		{"upper case", `{"TO":"x"}`, "", "the nearest that is known is to"},
		{"plural", `{"secret":[]}`, "", "is secrets"},
		{"unlike anything", `{"swordfish":1}`, "", "there is no such field."},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, err := Decode([]byte(c.body))
			p, ok := errors.AsType[*mail.Problem](err)
			if !ok {
				t.Fatalf("taken as %+v, %v", r, err)
			}
			if p.Type != mail.ProblemInvalid || p.Status != 400 || p.Field != c.field || !strings.Contains(p.Detail, c.says) {
				t.Errorf("got %s %d field %q: %s\nwant field %q: …%s…", p.Type, p.Status, p.Field, p.Detail, c.field, c.says)
			}
			if !reflect.ValueOf(r).IsZero() {
				t.Errorf("refused, and yet returned %+v", r)
			}
		})
	}
}

func TestD09DecodeBounds(t *testing.T) {
	t.Parallel()
	body := func(n int) []byte {
		const head, tail = `{"data":{"a":"`, `"}}`
		return []byte(head + strings.Repeat("x", n-len(head)-len(tail)) + tail)
	}
	if _, err := Decode(body(MaxBody)); err != nil {
		t.Errorf("64 KiB: %v", err)
	}
	if p, _ := errors.AsType[*mail.Problem](second(Decode(body(MaxBody + 1)))); p == nil || p.Status != 413 {
		t.Errorf("64 KiB and 1 byte: %v, want 413", p)
	}
	nine := `{"data":{"a":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}}`
	if _, err := Decode([]byte(nine)); err != nil {
		t.Errorf("depth 10: %v", err)
	}
}

func second[A, B any](_ A, b B) B { return b }

// FuzzDecode: the decoder never panics; what it takes can be written and read again
// with the same meaning; what it refuses it does not repeat; and it takes nothing that
// encoding/json refuses.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		good, `{}`, `{"data":{"a":[1,2.5,-0,{"b":null}]},"expires_at":"2026-11-26T13:00:00.5+02:00"}`,
		`{"to":"\ud83d\ude00"}`, `{"to":"\ud800"}`, `{"tags":["b","a","b"],"secrets":[],"metadata":{"x":""}}`,
		`{"tenantName":1}`, `{"data":{"a":1e5}}`, `{"idempotency_key":"k"}`, `{"expires_at":"9999-12-31T23:59:59-12:00"}`,
	} {
		f.Add([]byte(s))
	}
	key := []byte("a key for the fuzzer")
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := Decode(body)
		if err != nil {
			if p, ok := errors.AsType[*mail.Problem](err); !ok || p.Detail == "" || p.Status < 400 {
				t.Fatalf("refused without a problem: %v", err)
			}
			return
		}
		var loose map[string]any
		if err := json.Unmarshal(body, &loose); err != nil {
			t.Fatalf("taken, though it is no JSON: %v", err)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("decoded and can't be encoded: %v", err)
		}
		if len(again) > MaxBody {
			return // escapes have made it longer
		}
		r2, err := Decode(again)
		if err != nil {
			t.Fatalf("%s\nencoded as %s\nis refused: %v", body, again, err)
		}
		h1, err1 := requestHash(key, &r, "a@b.example")
		h2, err2 := requestHash(key, &r2, "a@b.example")
		if err1 != nil || err2 != nil || h1 != h2 {
			t.Fatalf("%s\nand %s\nhave two meanings (%v, %v)", body, again, err1, err2)
		}
	})
}

// FuzzDecodeCanary puts a secret at a place in a request and breaks the request at
// another: no error may repeat it.
func FuzzDecodeCanary(f *testing.F) {
	f.Add(uint16(9), uint16(3), byte('"'), `{"to":"CANARY","data":{"CANARY":"CANARY"}}`)
	f.Add(uint16(0), uint16(9), byte('1'), `{"CANARY":1}`)
	f.Add(uint16(0), uint16(14), byte('x'), `{"expires_at":"CANARY"}`)
	f.Fuzz(func(t *testing.T, cut, at uint16, c byte, body string) {
		const canary = "s3cr3t-900913"
		b := []byte(strings.ReplaceAll(body, "CANARY", canary))
		if len(b) > 0 {
			b[int(at)%len(b)] = c
			b = b[:len(b)-int(cut)%len(b)]
		}
		_, err := Decode(b)
		p, ok := errors.AsType[*mail.Problem](err)
		if !ok {
			return
		}
		text, _ := json.Marshal(p)
		for _, piece := range []string{canary[:6], canary[7:]} {
			if strings.Contains(p.Error(), piece) || strings.Contains(string(text), piece) {
				t.Fatalf("%q is refused with %s", b, strconv.Quote(p.Error()))
			}
		}
	})
}
