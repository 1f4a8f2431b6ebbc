// Package docs_test holds the documents to the code.
package docs_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func protocol(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("PROTOCOL.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestProtocolShowsEveryGoldenMessage compares the examples with the files that the codecs are
// tested by: each is one of them, and none is missing.
func TestProtocolShowsEveryGoldenMessage(t *testing.T) {
	files, err := filepath.Glob("../pkg/wire/testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	golden := map[string]string{} // compact JSON to file
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if name := filepath.Base(file); name != "index.json" {
			golden[compact(t, text)] = name
		}
	}
	for _, block := range regexp.MustCompile("(?s)```json\n(.*?)```").FindAllStringSubmatch(protocol(t), -1) {
		example := compact(t, []byte(block[1]))
		if _, ok := golden[example]; !ok {
			t.Errorf("this example is no golden file, or is shown twice: %s", example)
		}
		delete(golden, example)
	}
	for _, name := range golden {
		t.Errorf("testdata/%s is not shown", name)
	}
}

func compact(t *testing.T, text []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return b.String()
}

// TestProtocolShowsTheGoldenBatch: the only message that is not JSON.
func TestProtocolShowsTheGoldenBatch(t *testing.T) {
	golden, err := os.ReadFile("../pkg/wire/testdata/batch.hex")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(section(t, "### Batches"), "\n```\n"+string(golden)+"```\n") {
		t.Error("testdata/batch.hex is not shown")
	}
}

func TestProtocolListsEveryCode(t *testing.T) {
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (yes|no) \\| ").FindAllStringSubmatch(section(t, "## 6."), -1) {
		documented = append(documented, row[1])
		if code := wire.Code(row[1]); code.Retryable() != (row[2] == "yes") {
			t.Errorf("%s: retryable is %v in the code, %s in the text", code, code.Retryable(), row[2])
		}
	}
	same(t, "codes", documented, constants(t, "../pkg/wire/code.go", "Code"))
}

func TestProtocolListsEveryCloseCode(t *testing.T) {
	var documented []string
	for _, row := range regexp.MustCompile(`(?m)^\| (4\d\d\d|1012) \|`).FindAllStringSubmatch(section(t, "## 7."), -1) {
		documented = append(documented, row[1])
	}
	same(t, "close codes", documented, constants(t, "../pkg/wire/code.go", "Close"))
}

func TestProtocolListsEveryEvent(t *testing.T) {
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (yes|no)[^|]* \\| ").FindAllStringSubmatch(section(t, "### event"), -1) {
		documented = append(documented, row[1])
	}
	same(t, "events", documented, constants(t, "../pkg/wire/event.go", "Event"))
}

func TestProtocolListsEveryLimit(t *testing.T) {
	limits := map[string]int{
		"MaxClientFrame": wire.MaxClientFrame, "MaxServerFrame": wire.MaxServerFrame, "MaxEvent": wire.MaxEvent, "MaxBatch": wire.MaxBatch, "MaxBatchBytes": wire.MaxBatchBytes,
		"MaxTask": wire.MaxTask, "MaxPositions": wire.MaxPositions, "MaxOpenTasks": wire.MaxOpenTasks,
		"MaxID": wire.MaxID, "MaxToken": wire.MaxToken, "MaxClaims": wire.MaxClaims, "MaxRuns": wire.MaxRuns, "MaxLogChunk": wire.MaxLogChunk,
		"MaxControl": wire.MaxControl, "MaxSchema": wire.MaxSchema, "MaxChannel": wire.MaxChannel, "MaxPost": wire.MaxPost,
		"MaxSubscriptions": wire.MaxSubscriptions, "MaxKept": wire.MaxKept, "MaxAskedChannels": wire.MaxAskedChannels, "MaxAskID": wire.MaxAskID,
		"MaxKey": wire.MaxKey, "MaxReason": wire.MaxReason,
	}
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(Max\\w+)` \\| ([0-9,]+) \\|").FindAllStringSubmatch(section(t, "## 8."), -1) {
		documented = append(documented, row[1])
		if value := strconv.Itoa(limits[row[1]]); value != strings.ReplaceAll(row[2], ",", "") {
			t.Errorf("%s is %s in the code, %s in the text", row[1], value, row[2])
		}
	}
	var names []string
	for _, c := range consts(t, "../pkg/wire/wire.go") {
		if strings.HasPrefix(c.name, "Max") {
			names = append(names, c.name)
		}
	}
	same(t, "limits", documented, names)
}

func TestProtocolListsEveryControlMessage(t *testing.T) {
	var documented, real []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `").FindAllStringSubmatch(section(t, "## 10."), -1) {
		documented = append(documented, row[1])
		if _, err := wire.DecodeControl(row[1], []byte(`{}`)); errors.Is(err, wire.ErrUnknownType) {
			t.Errorf("%s is no control message", row[1])
		}
	}
	files, err := filepath.Glob("../pkg/wire/testdata/control_*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_reply.json") { // another example of the same
			continue
		}
		real = append(real, strings.TrimPrefix(strings.TrimSuffix(filepath.Base(file), ".json"), "control_"))
	}
	same(t, "control messages", documented, real)
}

func TestProtocolNamesWhatLiesInTheBroker(t *testing.T) {
	text := section(t, "## 9.")
	for _, name := range []string{
		broker.ExchangeUtils, broker.ExchangeUnrouted, broker.ExchangeControl, broker.ExchangeAnnounce,
		broker.ExchangeTasks, broker.ExchangeDead, broker.ExchangeChannels, broker.ExchangeNamed, broker.QueueParked, broker.QueueDeadEvents, broker.QueueDeadTasks, broker.QueueKeptTasks,
		broker.MailboxQueue("S"), broker.ChannelsQueue("S"), broker.TasksQueue("K", wire.Normal), broker.TasksQueue("K", wire.High), broker.Worker("S").ControlQueue(), broker.Runner("R").ControlQueue(),
		broker.ToDeadEvents().Key, broker.ToDeadTasks().Key, broker.ToKeptTasks().Key,
	} {
		if !strings.Contains(text, "`"+name+"`") {
			t.Errorf("%s is not told to authors of runners", name)
		}
	}
}

// section returns the text from a heading to the next one of its level or a higher one.
func section(t *testing.T, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(protocol(t), "\n"+heading)
	if !ok {
		t.Fatalf("PROTOCOL.md has no section %s", heading)
	}
	level := strings.IndexByte(heading, ' ')
	if end := regexp.MustCompile(`(?m)^#{1,` + strconv.Itoa(level) + `} `).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

type constant struct{ name, value string }

// consts returns the constants of a file whose values are literals, and those of any other value
// with an empty one.
func consts(t *testing.T, file string) (all []constant) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		for _, s := range g.Specs {
			v := s.(*ast.ValueSpec)
			for i, name := range v.Names {
				c := constant{name: name.Name}
				if lit, ok := v.Values[i].(*ast.BasicLit); ok {
					c.value = strings.Trim(lit.Value, `"`)
				}
				all = append(all, c)
			}
		}
	}
	return all
}

// constants returns the values of the constants whose names begin with prefix.
func constants(t *testing.T, file, prefix string) (values []string) {
	t.Helper()
	for _, c := range consts(t, file) {
		if strings.HasPrefix(c.name, prefix) {
			values = append(values, c.value)
		}
	}
	return values
}

func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	slices.Sort(documented)
	slices.Sort(real)
	if !slices.Equal(documented, real) {
		t.Errorf("%s in PROTOCOL.md:\n%q\nin the code:\n%q", what, documented, real)
	}
}
