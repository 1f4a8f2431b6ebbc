package wscluster_test

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/wscluster/wscluster"

// floors is the house: each package imports only packages of lower floors. A name that ends in a
// slash stands for every package beneath it.
var floors = map[string]int{
	"pkg/socketmeta":     0,
	"internal/engine":    0,
	"internal/guard":     0,
	"internal/lifecycle": 0,
	"internal/operators": 0,
	"internal/rig":       0, // private servers for tests, the demo and the figures
	"web":                0, // the embedded pages

	"pkg/wire":        1,
	"internal/config": 1,

	"internal/auth": 2,
	"pkg/broker":    2,
	"pkg/schema":    2,
	"pkg/wsclient":  2,

	"pkg/amqp":              3,
	"pkg/batch":             3,
	"pkg/broker/brokertest": 3,
	"pkg/broker/memory":     3,
	"pkg/channel":           3,
	"internal/catalog":      3,
	"internal/session":      3,

	"pkg/taskrunner":   4,
	"internal/ask":     4,
	"internal/hub":     4,
	"internal/mailbox": 4,

	"internal/build":  5,
	"internal/worker": 5,

	"bench/load":     6, // cheap clients by the thousand, for the figures
	"bench/lab":      6, // private clusters of the programs as they are now
	"bench/bare":     6, // what the figures are compared with
	"bench/crowd":    7, // many clients, and what they got
	"bench/report":   8, // lines, tables and plots of what was measured
	"internal/chaos": 6, // faults, load and ledger of wsctl chaos

	"cmd/":      9,
	".":         9, // this package
	"bench/":    9,
	"deploy/":   9,
	"docs/":     9,
	"e2e":       9,
	"examples/": 9,
}

// forTests may be imported by the _test.go files of any floor.
var forTests = []string{"pkg/broker/memory", "pkg/broker/brokertest", "internal/rig"}

// drivers are the libraries that only some packages may know, in their tests too.
var drivers = map[string][]string{
	"github.com/rabbitmq/amqp091-go": {"pkg/amqp", "internal/chaos", "bench/"},
	"github.com/gobwas/ws":           {"internal/engine", "pkg/wsclient", "bench/", "e2e"},

	"github.com/santhosh-tekuri/jsonschema/v6": {"pkg/schema"},
}

// driversOfTests are those that the tests of some more packages may know: they hold messages to docs/schemas.
var driversOfTests = map[string][]string{
	"github.com/santhosh-tekuri/jsonschema/v6": {"pkg/wire", "e2e"},
}

// TestLayers reads the imports of every Go file, under every build tag. It does not ask `go list`:
// the test cache would not see a change.
func TestLayers(t *testing.T) {
	files := 0
	for _, name := range sources(t, ".go") {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		files++
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if err := checkImport(path.Dir(name), imported, strings.HasSuffix(name, "_test.go")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, ok := floorOf(path.Dir(name)); !ok {
			t.Errorf("%s: package %s is on no floor of layers_test.go", name, path.Dir(name))
		}
	}
	if files < 10 {
		t.Errorf("only %d Go files were found: the test looks in the wrong place", files)
	}
}

func TestLayersRefuse(t *testing.T) {
	for _, test := range []struct {
		pkg, imported string
		inTest        bool
		want          string // "" allows it
	}{
		{"pkg/wire", "pkg/socketmeta", false, ""},
		{"pkg/wire", "internal/engine", false, "pkg/ never imports internal/"},
		{"pkg/wire", "pkg/broker", false, "floor 1 imports floor 2"},
		{"internal/engine", "internal/lifecycle", false, "floor 0 imports floor 0"},
		{"internal/worker", "pkg/amqp", false, "the command chooses the broker"},
		{"internal/worker", "pkg/broker/memory", false, "the command chooses the broker"},
		{"internal/worker", "pkg/broker/memory", true, ""},
		{"internal/worker", "pkg/amqp", true, "the command chooses the broker"},
		{"pkg/broker", "pkg/broker/memory", false, "floor 2 imports floor 3"},
		{"pkg/broker", "pkg/broker/memory", true, ""},
		{"pkg/broker", "pkg/broker", true, ""},
		{"pkg/amqp", "internal/rig", true, ""},
		{"pkg/amqp", "internal/rig", false, "pkg/ never imports internal/"},
		{"pkg/amqp", "internal/lifecycle", true, "pkg/ never imports internal/"},
		{"cmd/wsworker", "pkg/amqp", false, ""},
		{"cmd/wsworker", "cmd/wsctl", false, "floor 9 imports floor 9"},
		{"cmd/wsworker", "internal/attic", false, "on no floor"},
		{"internal/engine", "pkg/wire", false, "floor 0 imports floor 1"},
		{"deploy/demo", "internal/rig", false, ""},
		{"internal/session", "github.com/gobwas/ws", false, "only"},
		{"internal/session", "github.com/gobwas/ws/wsutil", true, "only"},
		{"internal/session", "github.com/gobwas/wsx", false, ""},
		{"pkg/broker/memory", "github.com/rabbitmq/amqp091-go", false, "only"},
		{"pkg/amqp", "github.com/rabbitmq/amqp091-go", false, ""},
		{"bench/figures", "github.com/rabbitmq/amqp091-go", false, ""},
		{"pkg/wire", "github.com/santhosh-tekuri/jsonschema/v6", true, ""},
		{"pkg/wire", "github.com/santhosh-tekuri/jsonschema/v6", false, "only"},
		{"internal/catalog", "github.com/santhosh-tekuri/jsonschema/v6", true, "only"},
		{"internal/session", "go.uber.org/zap", false, ""},
	} {
		imported := test.imported
		if !strings.Contains(imported, ".") {
			imported = module + "/" + imported
		}
		got := ""
		if err := checkImport(test.pkg, imported, test.inTest); err != nil {
			got = err.Error()
		}
		if (got == "") != (test.want == "") || !strings.Contains(got, test.want) {
			t.Errorf("%s imports %s (test %t): got %q, want %q", test.pkg, test.imported, test.inTest, got, test.want)
		}
	}
}

// checkImport says why pkg, a directory of this module, may not import the path imported.
func checkImport(pkg, imported string, inTest bool) error {
	for driver, owners := range drivers {
		if imported == driver || strings.HasPrefix(imported, driver+"/") {
			if inTest {
				owners = slices.Concat(owners, driversOfTests[driver])
			}
			if !slices.ContainsFunc(owners, func(o string) bool { return matches(o, pkg) }) {
				return fmt.Errorf("imports %s, which only %s may", imported, strings.Join(owners, ", "))
			}
		}
	}
	to, ours := strings.CutPrefix(imported, module+"/")
	if !ours || to == pkg || inTest && slices.Contains(forTests, to) {
		return nil
	}
	from, _ := floorOf(pkg)
	floor, ok := floorOf(to)
	switch {
	case !ok:
		return fmt.Errorf("imports %s, which is on no floor of layers_test.go", to)
	case strings.HasPrefix(pkg, "pkg/") && strings.HasPrefix(to, "internal/"):
		return fmt.Errorf("imports %s: pkg/ never imports internal/", to)
	case pkg == "internal/worker" && (to == "pkg/amqp" || to == "pkg/broker/memory"):
		return fmt.Errorf("imports %s: the command chooses the broker", to)
	case floor >= from:
		return fmt.Errorf("imports %s: floor %d imports floor %d", to, from, floor)
	}
	return nil
}

// floorOf finds pkg in the table, by its own name or by the longest name that it lies beneath.
func floorOf(pkg string) (floor int, ok bool) {
	longest := ""
	for name, f := range floors {
		if matches(name, pkg) && len(name) > len(longest) {
			longest, floor, ok = name, f, true
		}
	}
	return floor, ok
}

func matches(name, pkg string) bool {
	return name == pkg || strings.HasSuffix(name, "/") && strings.HasPrefix(pkg+"/", name)
}

// sources lists the files of this repository with a given ending, by their slashed paths from its
// root, without what other tools put there.
func sources(t *testing.T, ending string) []string {
	t.Helper()
	var names []string
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch base := path.Base(name); {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (base[0] == '.' || base[0] == '_' || base == "node_modules" || base == "testdata"):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(base, ending):
			names = append(names, name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
