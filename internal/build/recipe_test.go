package build

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const minimal = "kind: k\nprograms: [p]\nsteps: [{name: s, argv: [p]}]\n"

func TestARecipeThatCannotBeTrustedIsRefused(t *testing.T) {
	withParam := func(schema, argv string) string {
		return "kind: k\nprograms: [p]\nparams: {type: object, additionalProperties: false, properties: {a: " + schema + "}}\nsteps: [{name: s, argv: " + argv + "}]\n"
	}
	for _, tt := range []struct{ name, yaml, want string }{
		{"nothing", "", "EOF"},
		{"two documents", minimal + "---\n" + minimal, "more than one document"},
		{"unknown key", minimal + "shell: true\n", "field shell not found"},
		{"no steps", "kind: k\n", "steps: there must be at least one"},
		{"bad kind", "kind: Go Build\nsteps: [{name: s, argv: [/p]}]\n", "kind: not a valid name"},
		{"no argv", "kind: k\nsteps: [{name: s}]\n", "steps: 1 (s): argv: there must be at least a program"},
		{"program by name", "kind: k\nsteps: [{name: s, argv: [sh]}]\n", `"sh" must be an absolute path or one of programs`},
		{"no name", "kind: k\nsteps: [{argv: [/p]}]\n", "steps: 1 (): must have a name"},
		{"same name", "kind: k\nsteps: [{name: s, argv: [/p]}, {name: s, argv: [/p]}]\n", "has the name of another step"},
		{"directory outside", "kind: k\nsteps: [{name: s, argv: [/p], dir: ../x}]\n", `dir: "../x" must be a path within the workspace`},
		{"file outside", minimal + "files: {/etc/passwd: x}\n", `files: "/etc/passwd" must be a path within the workspace`},
		{"variable", minimal + "env: {copy: [A=B]}\n", `env: copy: "A=B" is not the name of a variable`},
		{"variable to set", minimal + "env: {set: {'A=B': c}}\n", `env: set: "A=B" is not the name of a variable`},
		{"timeout without unit", minimal + "timeout: 600\n", "line 4: cannot unmarshal !!int `600` into time.Duration"},
		{"negative timeout", minimal + "timeout: -1s\n", "timeout: -1s must not be negative"},
		{"step timeout", "kind: k\nsteps: [{name: s, argv: [/p], timeout: -1s}]\n", "timeout: -1s must not be negative"},
		{"negative retries", minimal + "retries: -1\n", "retries: -1 must be between 0 and 9"},
		{"retries beyond the attempts", minimal + "retries: 10\n", "retries: 10 must be between 0 and 9"},
		{"output limit", minimal + "output_limit_bytes: -1\n", "output_limit_bytes: -1 must not be negative"},
		{"pattern", "kind: k\nsteps: [{name: s, argv: [/p], progress: {match: '('}}]\n", `progress: match: "(" must be a regular expression`},
		{"total of a later step", "kind: k\nsteps: [{name: s, argv: [/p], progress: {match: x, total_of: s}}]\n", `total_of: "s" is no earlier step that has progress`},
		{"open schema", "kind: k\nparams: {type: object}\nsteps: [{name: s, argv: [/p]}]\n", "params: must have type object and additionalProperties false"},
		{"no schema", "kind: k\nparams: {type: object, additionalProperties: false, required: 7}\nsteps: [{name: s, argv: [/p]}]\n", "params: "},
		{"unknown parameter", withParam("{type: string, maxLength: 9}", `[p, "{b}"]`), "{b} is not in the properties of params"},
		{"unbounded string", withParam("{type: string}", `[p, "{a}"]`), "{a} is a string and must have maxLength or enum"},
		{"unbounded list", withParam("{type: array, items: {type: string, maxLength: 9}}", `[p, "{a}"]`), "{a} is a list and must have maxItems and items"},
		{"list of unbounded strings", withParam("{type: array, maxItems: 2, items: {type: string}}", `[p, "{a}"]`), "{a} is a string and must have maxLength"},
		{"list behind text", withParam("{type: array, maxItems: 2, items: {type: integer}}", `[p, "x={a}"]`), "{a} is a list and must be the whole argument"},
		{"object", withParam("{type: object}", `[p, "{a}"]`), "{a} must have the type string, integer or boolean"},
		{"template", withParam("{type: integer}", `[p, "{a}{a}"]`), "a parameter must be the whole argument or the end of it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseRecipe([]byte(tt.yaml))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestASchemaReadsNoOtherFile(t *testing.T) {
	other := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(other, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := ParseRecipe([]byte("kind: k\nparams: {type: object, additionalProperties: false, $ref: 'file://" + other + "'}\nsteps: [{name: s, argv: [/p]}]\n"))
	if err == nil {
		t.Error("no error")
	}
}

func TestTheShippedRecipesAreReady(t *testing.T) {
	recipes, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := Kinds(recipes, Options{WorkDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := slices.Sorted(maps.Keys(kinds)), []string{"countdown", "go-build", "make"}; !slices.Equal(got, want) {
		t.Errorf("kinds %v, want %v", got, want)
	}
	if kinds["go-build"].Steps != 8 {
		t.Errorf("go-build announces %d steps", kinds["go-build"].Steps)
	}
}

func TestARecipeWhoseProgramIsMissingLeavesTheOthers(t *testing.T) {
	var recipes []*Recipe
	for _, text := range []string{
		"kind: a\nprograms: [no-such-program]\nsteps: [{name: s, argv: [no-such-program]}]\n",
		"kind: b\nsteps: [{name: s, argv: [/bin/true]}]\n",
		"kind: b\nsteps: [{name: s, argv: [/bin/true]}]\n",
	} {
		r, err := ParseRecipe([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		recipes = append(recipes, r)
	}
	kinds, err := Kinds(recipes, Options{WorkDir: t.TempDir()})
	if err == nil || !strings.Contains(err.Error(), `recipe a: step "s": exec: "no-such-program"`) || !strings.Contains(err.Error(), "recipe b: the kind is there already") {
		t.Errorf("got %v", err)
	}
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, []string{"b", "countdown"}) {
		t.Errorf("kinds %v", got)
	}
}

func TestADirectoryThatIsNotThereIsSaid(t *testing.T) {
	for _, o := range []Options{{WorkDir: "/no/such"}, {RepoRoots: []string{"/no/such"}}, {WorkDir: "/dev/null"}} {
		if _, err := Kinds(nil, o); err == nil {
			t.Errorf("no error for %+v", o)
		}
	}
}

func FuzzParseRecipe(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(hostileRecipe))
	files, err := shipped.ReadDir("recipes")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := shipped.ReadFile("recipes/" + file.Name())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecipe(data)
		if err == nil && (r.Timeout <= 0 || r.Grace <= 0 || r.OutputLimitBytes <= 0 || len(r.Steps) == 0) {
			t.Errorf("accepted without a limit: %+v", r)
		}
	})
}
