package docs_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const faults = 35

var (
	faultRow   = regexp.MustCompile(`(?m)^\| (\d+) \|.*$`)
	namedTest  = regexp.MustCompile("`((?:e2e|internal|pkg)[a-z0-9/]*)/(Test\\w+)`")
	writtenAny = regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	faultTest  = regexp.MustCompile(`^TestFault(\d\d)`)
)

// TestFaultsNamesTestsThatExist holds the table to the code: one row for each fault, every test that
// it names exists, and every fault test is named in its row.
func TestFaultsNamesTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("FAULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	written := map[string]bool{}
	for _, name := range testFiles(t) {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		folder := strings.TrimPrefix(filepath.ToSlash(filepath.Dir(name)), "../")
		for _, m := range writtenAny.FindAllSubmatch(source, -1) {
			written[folder+"/"+string(m[1])] = true
		}
	}
	for _, m := range namedTest.FindAllStringSubmatch(string(text), -1) {
		if test := m[1] + "/" + m[2]; !written[test] {
			t.Errorf("FAULTS.md names %s, which does not exist", test)
		}
	}
	rows := map[string]string{}
	for i, m := range faultRow.FindAllStringSubmatch(string(text), -1) {
		if m[1] != strconv.Itoa(i+1) {
			t.Errorf("row %s stands in place %d", m[1], i+1)
		}
		rows[fmt.Sprintf("%02d", i+1)] = m[0]
	}
	if len(rows) != faults {
		t.Errorf("%d rows, want %d", len(rows), faults)
	}
	for test := range written {
		if m := faultTest.FindStringSubmatch(filepath.Base(test)); m != nil && !strings.Contains(rows[m[1]], "`"+test+"`") {
			t.Errorf("row %s of FAULTS.md does not name %s", m[1], test)
		}
	}
}

// testFiles are those of this repository that may hold fault tests.
func testFiles(t *testing.T) (names []string) {
	t.Helper()
	for _, pattern := range []string{"../e2e/*_test.go", "../internal/*/*_test.go", "../pkg/*/*_test.go", "../pkg/*/*/*_test.go"} {
		some, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, some...)
	}
	return names
}
