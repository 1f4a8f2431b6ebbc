package docs_test

import (
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
