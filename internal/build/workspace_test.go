package build

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
)

// A workspace lies in its work directory, also if somebody has prepared that.
func TestAWorkspaceIsMadeNowhereElse(t *testing.T) {
	parent, outside := t.TempDir(), t.TempDir()
	link := func(name, to string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(parent, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("link", outside)
	link("dangling", filepath.Join(outside, "new"))
	link("up", "..")
	if err := os.Mkdir(filepath.Join(parent, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		files map[string]string
	}{
		{"../x", nil},
		{"link/x", nil},
		{"up/x", nil},
		{filepath.Join(outside, "x"), nil},
		{"link", nil},     // it exists
		{"dangling", nil}, // it would be made where the link leads
		{"there", nil},    // somebody else's
		{".", nil},
		{"a", map[string]string{"../../x": ""}},
		{"b", map[string]string{"../link/x": ""}},
		{"c", map[string]string{"/../../x": "", "../../x/y": ""}},
	} {
		w, err := newWorkspace(parent, tt.name, tt.files)
		if err == nil {
			t.Errorf("%s with %v was made", tt.name, tt.files)
			_ = w.remove()
		}
	}
	wantEmpty(t, outside)
	if _, err := os.Lstat(filepath.Join(parent, "link")); err != nil {
		t.Errorf("the failure removed what was there: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(parent), "x*")); len(left) > 0 {
		t.Errorf("made beside the work directory: %v", left)
	}
}

// What a step has left in the place of the next one's directory does not lead that out of the workspace.
func TestAStepBeginsInItsWorkspace(t *testing.T) {
	outside := t.TempDir()
	for _, tt := range []struct{ name, replaced, by, dir, want string }{
		{"a link out", "src", outside, "src", "escapes"},
		{"a link up", "src", "../..", "src", "escapes"},
		{"a link on the way", "src", outside, "src/deeper", "escapes"},
		{"a link to a link", "src", "tmp/../../", "src", "escapes"},
		{"nothing", "src", "none", "src", "no such file"},
		{"a file", "src", "/dev/null", "src", "escapes"},
		{"a link within", "src", "tmp", "src", ""},
		{"the workspace itself", ".", outside, "", "gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			work := t.TempDir()
			recipe := "kind: one\nfiles: {README: ''}\nsteps: [{name: first, argv: ['%s', replace, '" + tt.replaced + "', '" + tt.by + "']}, {name: second, argv: ['%s', touch], dir: '" + tt.dir + "'}]\n"
			o := do(t, kindsOf(t, Options{WorkDir: work}, recipe), "one", nil)
			if tt.want == "" && len(o.result.Steps) != 2 {
				t.Errorf("got %v", o.failure)
			}
			if tt.want != "" && (o.failure.Code != wire.CodeFailed || !strings.Contains(o.failure.Message, `step "second" cannot begin`) || !strings.Contains(o.failure.Message, tt.want)) {
				t.Errorf("got %v, want %q", o.failure, tt.want)
			}
			if strings.Contains(o.failure.Message, work) || strings.Contains(o.failure.Message, outside) {
				t.Errorf("the client is told of the runner's paths: %v", o.failure)
			}
			if _, err := os.Stat(filepath.Join(outside, "touched")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a step ran outside of its workspace")
			}
			wantEmpty(t, work)
		})
	}
}
