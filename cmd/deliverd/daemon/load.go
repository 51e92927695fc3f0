package daemon

import (
	"bytes"
	_ "embed" // for Example
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// Load reads the configuration: file beats default, and the environment
// (DELIVERD_SECTION__KEY) beats the file. An empty path means no file. Unknown keys
// and wrong types are errors; Load's error is a *ConfigError unless the file can't
// be read.
func Load(path string, environ []string) (*Config, error) {
	c := Defaults()
	if path != "" {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &ConfigError{[]string{path + ": there is no such file; `deliverd config example` prints one to begin with"}}
		}
		if err != nil {
			return nil, err
		}
		c.file = path
		if bad := decodeTOML(path, text, c); bad != nil {
			return nil, &ConfigError{bad}
		}
	}
	if bad := c.applyEnviron(environ); bad != nil {
		return nil, &ConfigError{bad}
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	return c, nil
}

// decodeTOML decodes strictly over what c already holds.
func decodeTOML(name string, text []byte, c *Config) (problems []string) {
	dec := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
	err := dec.Decode(c)
	if err == nil {
		return nil
	}
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		for _, e := range strict.Errors {
			row, col := e.Position()
			key := []string(e.Key())
			p := fmt.Sprintf("%s:%d:%d: unknown key %q", name, row, col, strings.Join(key, "."))
			if near := nearestKey(key); near != "" {
				p += fmt.Sprintf("; did you mean %q?", near)
			}
			problems = append(problems, p)
		}
		return problems
	}
	if e, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, col := e.Position()
		p := fmt.Sprintf("%s:%d:%d: %s", name, row, col, strings.TrimPrefix(e.Error(), "toml: "))
		if key := strings.Join(e.Key(), "."); key != "" {
			p += fmt.Sprintf(" (key %q)", key)
		}
		return []string{p}
	}
	return []string{name + ": " + err.Error()}
}

// applyEnviron sets keys from variables such as DELIVERD_LISTEN__HTTP. Each is put
// through the same strict decoder as the file.
func (c *Config) applyEnviron(environ []string) (problems []string) {
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		rest, ours := strings.CutPrefix(name, "DELIVERD_")
		// A section's key has the two underscores; what has none and is no key, such as
		// DELIVERD_SERVER, is somebody else's variable.
		if !ours || !strings.Contains(rest, "__") && name != "DELIVERD_DATA" {
			continue
		}
		key := strings.Split(strings.ToLower(rest), "__")
		t := keyType(reflect.TypeFor[Config](), key)
		if t == nil {
			p := fmt.Sprintf("environment: %s is no setting", name)
			if near := nearestKey(key); near != "" {
				p += fmt.Sprintf("; did you mean DELIVERD_%s?", strings.ToUpper(strings.ReplaceAll(near, ".", "__")))
			}
			problems = append(problems, p)
			continue
		}
		doc := strings.Join(key, ".") + " = " + tomlValue(t, value)
		for _, p := range decodeTOML("environment: "+name, []byte(doc), c) {
			problems = append(problems, p)
		}
	}
	return problems
}

// tomlValue writes value as TOML for a field of type t.
func tomlValue(t reflect.Type, value string) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	quote := func(s string) string { return `"` + tomlEscaper.Replace(s) + `"` }
	switch {
	case t.Kind() == reflect.String || t == reflect.TypeFor[Duration]():
		return quote(value)
	case t.Kind() == reflect.Slice && !strings.HasPrefix(value, "["):
		var items []string
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				items = append(items, quote(item))
			}
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return value
}

var tomlEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`)

// keyType returns the type of the field that key names, nil if it names none or a
// whole section.
func keyType(t reflect.Type, key []string) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if len(key) == 0 {
		if t.Kind() == reflect.Struct {
			return nil
		}
		return t
	}
	switch t.Kind() {
	case reflect.Map:
		return keyType(t.Elem(), key[1:])
	case reflect.Struct:
		for f := range t.Fields() {
			if keyName(f) == key[0] && key[0] != "" {
				return keyType(f.Type, key[1:])
			}
		}
	}
	return nil
}

// keyName is the field's key in the file, "" for one that has none.
func keyName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("toml"), ",")
	return name
}

// nearestKey returns the known key that a misspelt one most likely means, or "".
// Only the part that is wrong is compared, in the section where it stands.
func nearestKey(key []string) string {
	t := reflect.TypeFor[Config]()
	for i, part := range key {
		for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
			t = t.Elem()
		}
		if t.Kind() == reflect.Map {
			t = t.Elem()
			continue
		}
		if t.Kind() != reflect.Struct {
			return ""
		}
		var next reflect.Type
		best, bestDistance := "", 3 // further than two slips is another word
		for f := range t.Fields() {
			name := keyName(f)
			if name == "" {
				continue
			}
			if name == part {
				next = f.Type
				break
			}
			if d := editDistance(part, name); d < bestDistance {
				best, bestDistance = name, d
			}
		}
		if next == nil {
			if best == "" {
				return ""
			}
			return strings.Join(append(slices.Clone(key[:i]), best), ".")
		}
		t = next
	}
	return ""
}

// editDistance is Levenshtein's, over bytes: keys are ASCII.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}

// Example is a configuration with every key explained.
//
//go:embed example.toml
var Example string

// TOML writes the configuration as a file that Load reads back to the same.
func (c *Config) TOML() ([]byte, error) { return toml.Marshal(c) }

// Map returns the configuration with the keys of the file, for JSON.
func (c *Config) Map() map[string]any {
	text, err := c.TOML()
	if err != nil {
		panic("a configuration that was read can't be written: " + err.Error()) // types only
	}
	var m map[string]any
	if err := toml.Unmarshal(text, &m); err != nil {
		panic("a configuration that was written can't be read: " + err.Error())
	}
	return m
}
