package docs_test

import (
	"bytes"
	"os"
	"regexp"
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
