package docs_test

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/wscluster/wscluster/internal/build"
)

func TestTheRecipeInTheOperatorsGuideIsOne(t *testing.T) {
	text, err := os.ReadFile("guides/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile("(?s)```yaml\n(kind: .*?)```").FindSubmatch(text)
	if recipe == nil {
		t.Fatal("operator.md shows no recipe")
	}
	if r, err := build.ParseRecipe(recipe[1]); err != nil || r.Kind != "make" {
		t.Errorf("the recipe reads as %+v, %v", r, err)
	}
}

// TestTheExamplesAreAsShortAsTheGuideSays: in under 60 lines each.
func TestTheExamplesAreAsShortAsTheGuideSays(t *testing.T) {
	for _, file := range []string{"python/runner.py", "node/runner.mjs"} {
		text, err := os.ReadFile("../examples/" + file)
		if lines := bytes.Count(text, []byte("\n")); err != nil || lines >= 60 {
			t.Errorf("%s has %d lines (%v)", file, lines, err)
		}
	}
}

// TestTheRunnerInTheGuideIsTheExample: the guide shows what is compiled, and the handler has 20 lines.
func TestTheRunnerInTheGuideIsTheExample(t *testing.T) {
	guide, err := os.ReadFile("guides/runner.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../examples/go/main.go")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := bytes.Cut(example, []byte(")\n\n")) // behind the imports
	if !bytes.Contains(guide, slices.Concat([]byte("```go\n"), code, []byte("```\n"))) {
		t.Error("runner.md does not show examples/go/main.go from its first function on")
	}
	handler := regexp.MustCompile("(?s)^func squares.*?\n}\n").Find(code)
	if lines := bytes.Count(handler, []byte("\n")); lines < 10 || lines > 20 {
		t.Errorf("the handler has %d lines, the guide says 20", lines)
	}
}

// TestThePublisherInTheGuideIsTheExample: the guide shows what the end-to-end tests run, in under 20 lines.
func TestThePublisherInTheGuideIsTheExample(t *testing.T) {
	guide, err := os.ReadFile("guides/channels.md")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile("../examples/python/publish.py")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := bytes.Cut(example, []byte("import pika\n\n")) // behind the imports
	if !bytes.Contains(guide, slices.Concat([]byte("```python\n"), code, []byte("```\n"))) {
		t.Error("channels.md does not show examples/python/publish.py from its imports on")
	}
	if lines := bytes.Count(example, []byte("\n")); lines >= 20 {
		t.Errorf("the example has %d lines", lines)
	}
}
