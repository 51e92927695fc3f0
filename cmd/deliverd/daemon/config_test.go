package daemon

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deliverd.toml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The example has every key: it loads, and no key of the configuration is missing
// from it.
func TestExampleLoadsAndIsComplete(t *testing.T) {
	t.Parallel()
	if _, err := Load(write(t, Example), nil); err != nil {
		t.Fatal(err)
	}
	var keys func(typ reflect.Type) []string
	keys = func(typ reflect.Type) (names []string) {
		for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice || typ.Kind() == reflect.Map {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct {
			return nil
		}
		for f := range typ.Fields() {
			if name := keyName(f); name != "" {
				names = append(append(names, name), keys(f.Type)...)
			}
		}
		return names
	}
	for _, k := range keys(reflect.TypeFor[Config]()) {
		if !strings.Contains(Example, "\n"+k+" = ") && !strings.Contains(Example, "#"+k+" = ") &&
			!strings.Contains(Example, "["+k+"]") && !strings.Contains(Example, "."+k+"]") && !strings.Contains(Example, "["+k+".") {
			t.Errorf("the example doesn't mention %q", k)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":               {"[listen]\nhtp = \"127.0.0.1:1\"\n", `:2:1: unknown key "listen.htp"; did you mean "listen.http"?`},
		"unknown section":           {"[lisen]\nhttp = \"\"\n", `did you mean "listen"?`},
		"unknown in array":          {"[[dkim]]\ndomain = \"a.example\"\nselektor = \"s\"\n", `did you mean "dkim.selector"?`},
		"pool without kinds":        {"[[send.pool]]\nhello = \"a.example\"\n", `send.pool[0].kinds: name the kinds`},
		"pool of an unknown kind":   {"[[send.pool]]\nkinds = [\"fax\"]\nhello = \"a.example\"\n", `no kind "fax"`},
		"two pools for a kind":      {"[[send.pool]]\nkinds = [\"pin\"]\nhello = \"a.example\"\n[[send.pool]]\nkinds = [\"pin\"]\nhello = \"b.example\"\n", `"pin" has a pool already`},
		"pool that changes nothing": {"[[send.pool]]\nkinds = [\"pin\"]\n", `it changes nothing`},
		"pool from no address":      {"[[send.pool]]\nkinds = [\"pin\"]\naddresses = [\"here\"]\n", `"here" is not an IP address`},
		"unknown in kind":           {"[kinds.pin]\nvalid_fro = \"1m\"\n", `did you mean "kinds.pin.valid_for"?`},
		"wrong type":                {"[send]\nconcurrency = \"many\"\n", `:2:15:`},
		"not a duration":            {"[kinds.pin]\nvalid_for = \"soon\"\n", `"soon" is not a duration`},
		"no toml":                   {"[send\n", `:1:`},
		"range":                     {"[send]\nconcurrency = 0\n", `send.concurrency: 0 is not between 1 and 10000`},
		"secret in the clear":       {"[send]\nrelay_user = \"u\"\nrelay_password = \"hunter2\"\n", `a secret is named, not written here`},
		"open to the network":       {"[listen]\nnats = \"0.0.0.0:4222\"\n", `would let anybody send; set nats.password`},
		"lab off the machine":       {"[lab]\ndial = { \":25\" = \"192.0.2.1:25\" }\n", `is not a loopback address`},
		"no address to open":        {"[listen]\nurl = \"mail.example.com\"\n", `write it as "https://mail.example.com"`},
		"a note about itself":       {"[send]\nreturn_path_domain = \"bounce.example.com\"\n[bounces]\npostmaster = \"postmaster@bounce.example.com\"\n", `bounces.postmaster: mail to this domain comes back to deliverd`},
		"a ring that can't grow":    {"[keys]\nseal = \"env:RING\"\n", `keys.seal: the key ring is a file`},
		"a ring among credentials":  {"[keys]\nseal = \"cred:ring\"\n", `keys.seal: the key ring is a file`},
		"lane":                      {"[kinds.x]\nlane = 12\n", `kinds.x.lane: 12 is not between 1`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(write(t, tt.text), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want it to say %q", err, tt.want)
			}
			if _, ok := errors.AsType[*ConfigError](err); !ok {
				t.Errorf("a %T, want *ConfigError", err)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats a secret")
			}
		})
	}
}

func TestEnvironmentBeatsFile(t *testing.T) {
	t.Parallel()
	path := write(t, "[send]\nhello = \"file.example\"\nconcurrency = 7\n")
	c, err := Load(path, []string{
		"HOME=/nowhere",
		"DELIVERD_SERVER=http://example.com", // a client's, no setting
		"DELIVERD_SHARED=elsewhere",          // of the tests
		"DELIVERD_DATA=data-of-the-environment",
		"DELIVERD_SEND__HELLO=environment.example",
		"DELIVERD_SEND__ADDRESSES=192.0.2.1, 192.0.2.2",
		"DELIVERD_KINDS__PIN__VALID_FOR=20m",
		`DELIVERD_LAB__DIAL={":25" = "127.0.0.1:2525"}`,
		"DELIVERD_NATS__SYNC=1s",
	})
	if err != nil {
		t.Fatal(err)
	}
	if c.Send.Hello != "environment.example" || c.Send.Concurrency != 7 || c.Data != "data-of-the-environment" {
		t.Errorf("hello %q, concurrency %d", c.Send.Hello, c.Send.Concurrency)
	}
	if !reflect.DeepEqual(c.Send.Addresses, []string{"192.0.2.1", "192.0.2.2"}) {
		t.Errorf("addresses %q", c.Send.Addresses)
	}
	if got := c.kinds()["pin"]; got.ValidFor != 20*time.Minute || got.Lane != 1 {
		t.Errorf("pin: %+v", got)
	}
	if c.Lab.Dial[":25"] != "127.0.0.1:2525" {
		t.Errorf("dial %v", c.Lab.Dial)
	}
	_, err = Load(path, []string{"DELIVERD_SEND__HELO=x"})
	if err == nil || !strings.Contains(err.Error(), "did you mean DELIVERD_SEND__HELLO?") {
		t.Errorf("a misspelt variable: %v", err)
	}
}

func TestPrintLoadsToTheSame(t *testing.T) {
	t.Parallel()
	c, err := Load(write(t, Example), nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := c.TOML()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(write(t, string(text)), nil)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	printed, err := again.TOML()
	if err != nil || !bytes.Equal(text, printed) {
		t.Errorf("%v; printed, read and printed again:\n%s\n%s", err, text, printed)
	}
}

func TestParseDuration(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{
		"90s": 90 * time.Second, "15m": 15 * time.Minute, "7d": 7 * 24 * time.Hour,
		"1d12h": 36 * time.Hour, "0s": 0, "10s": 10 * time.Second, "30m": 30 * time.Minute, "10h": 10 * time.Hour,
	} {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
		if text, _ := Duration(want).MarshalText(); in != "1d12h" && in != "90s" && string(text) != in {
			t.Errorf("%v is written as %q", want, text)
		}
	}
	for _, in := range []string{"", "d", "-1m", "7", "1d-1h", "99999999d", "1h1d"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("%q: %v", in, got)
		}
	}
}
