package deliver

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// Each row of the fault suite that is a delivery's has a test that bears its name,
// here or in the package whose matter it is.
func TestEveryFaultIsNamed(t *testing.T) {
	t.Parallel()
	var all []byte
	for _, dir := range []string{".", "tlspolicy", "../dnscheck", "../queue", "../cmd/deliverd/daemon"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, text...)
		}
	}
	for _, rows := range []struct {
		letter      string
		first, last int
	}{{"A", 1, 55}, {"B", 1, 20}, {"C", 1, 14}, {"C", 18, 18}} {
		for n := rows.first; n <= rows.last; n++ {
			row := fmt.Sprintf("%s%02d", rows.letter, n)
			if !regexp.MustCompile(`(Test(Fault)?|"|, )` + row + `\b|Test(Fault)?` + row + `[A-Z]`).Match(all) {
				t.Errorf("no test is named for %s", row)
			}
		}
	}
}
