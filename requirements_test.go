package wscluster_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// requirements counts the rows of each source in docs/requirements.md: W1 to W18, and so on.
var requirements = map[string]int{"W": 18, "K": 15, "D": 19, "V": 31, "O": 7}

var (
	requirementRow = regexp.MustCompile(`^\| ([A-Z]\d+) \| .+ \| (.+) \|$`)
	quoted         = regexp.MustCompile("`([^`]+)`")
	goTest         = regexp.MustCompile(`^(?:(.+)/)?((?:Test|Fuzz|Benchmark|Example)\w*)(?:/.+)?$`)
	makeTarget     = regexp.MustCompile(`(?m)^([a-z][a-z-]*):`)
)

// TestRequirementsNameWhatExists reads the third column of docs/requirements.md: "not yet", or
// code in backticks. There a Go test is `TestX`, `TestX/sub name` or, after its directory,
// `pkg/wire/TestX`; a file of TypeScript tests is `client/test/x.test.ts`; anything else is a
// command.
func TestRequirementsNameWhatExists(t *testing.T) {
	tree := readTree(t)
	var got, want []string
	for source, n := range requirements {
		for i := range n {
			want = append(want, fmt.Sprintf("%s%d", source, i+1))
		}
	}
	text, err := os.ReadFile("docs/requirements.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		row := requirementRow.FindStringSubmatch(strings.TrimSpace(line))
		if row == nil {
			continue
		}
		got = append(got, row[1])
		if err := tree.check(row[2]); err != nil {
			t.Errorf("docs/requirements.md, row %s: %v", row[1], err)
		}
	}
	for _, id := range want {
		if n := count(got, id); n != 1 {
			t.Errorf("docs/requirements.md has %d rows %s, want 1", n, id)
		}
	}
	for _, id := range got {
		if !slices.Contains(want, id) {
			t.Errorf("docs/requirements.md has a row %s, which no source has", id)
		}
	}
}

func TestRequirementsRefuse(t *testing.T) {
	tree := tree{
		tests:   map[string][]string{"TestA": {"pkg/a", "pkg/b"}},
		scripts: []string{"client/test/a.test.ts"},
		targets: []string{"figures"},
	}
	for cell, want := range map[string]string{
		"not yet":                              "",
		"not yet; so far `TestA`":              "",
		"`TestA`":                              "",
		"`TestA/a sub test/deeper`":            "",
		"`pkg/b/TestA`, `pkg/a/TestA/sub`":     "",
		"`client/test/a.test.ts`":              "",
		"`make figures`":                       "",
		"`rabbitmqctl list_bindings` shows it": "",
		"yes":                                  "names nothing",
		"":                                     "names nothing",
		"TestA":                                "names nothing",
		"`TestB`":                              "no test TestB",
		"`TestA` and `TestB/sub`":              "no test TestB",
		"`pkg/c/TestA`":                        "no test TestA in pkg/c",
		"`client/test/b.test.ts`":              "no file client/test/b.test.ts",
		"`make everything`":                    "no target everything",
		"not yet; so far `TestB`":              "no test TestB",
	} {
		got := ""
		if err := tree.check(cell); err != nil {
			got = err.Error()
		}
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", cell, got, want)
		}
	}
}

// tree is what a row may name.
type tree struct {
	tests   map[string][]string // the directories of each Go test
	scripts []string            // files of TypeScript tests
	targets []string            // of the Makefile
}

func readTree(t *testing.T) tree {
	t.Helper()
	tree := tree{tests: map[string][]string{}, scripts: sources(t, ".test.ts")}
	for _, name := range sources(t, "_test.go") {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil && goTest.MatchString(f.Name.Name) {
				tree.tests[f.Name.Name] = append(tree.tests[f.Name.Name], path.Dir(name))
			}
		}
	}
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	for _, target := range makeTarget.FindAllStringSubmatch(string(makefile), -1) {
		tree.targets = append(tree.targets, target[1])
	}
	if !slices.Contains(slices.Collect(maps.Keys(tree.tests)), t.Name()) {
		t.Errorf("%s did not find itself: it looks in the wrong place", t.Name())
	}
	return tree
}

// check says what is wrong with the third cell of a row.
func (t tree) check(cell string) error {
	names := quoted.FindAllStringSubmatch(cell, -1)
	if len(names) == 0 && cell != "not yet" {
		return fmt.Errorf("%q names nothing in backticks and is not \"not yet\"", cell)
	}
	for _, name := range names {
		if strings.HasSuffix(name[1], ".test.ts") {
			if !slices.Contains(t.scripts, name[1]) {
				return fmt.Errorf("there is no file %s", name[1])
			}
			continue
		}
		if target, ok := strings.CutPrefix(name[1], "make "); ok {
			if !slices.Contains(t.targets, target) {
				return fmt.Errorf("the Makefile has no target %s", target)
			}
			continue
		}
		test := goTest.FindStringSubmatch(name[1])
		if test == nil {
			continue // a command
		}
		dirs, ok := t.tests[test[2]]
		if !ok {
			return fmt.Errorf("there is no test %s", test[2])
		}
		if test[1] != "" && !slices.Contains(dirs, test[1]) {
			return fmt.Errorf("there is no test %s in %s, but in %s", test[2], test[1], strings.Join(dirs, ", "))
		}
	}
	return nil
}

func count(ids []string, id string) (n int) {
	for _, i := range ids {
		if i == id {
			n++
		}
	}
	return n
}
