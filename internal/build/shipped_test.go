package build

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// repository makes a Git repository with a Go module and a Makefile in it, two commits long, and
// returns its path and its commits, the first of them on the branch "old". What a checkout must
// not run is in it too.
func repository(t *testing.T, root string) (repo string, old, head string) {
	t.Helper()
	repo = filepath.Join(root, "repo")
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", repo, "-c", "user.name=T", "-c", "user.email=t@example.org"}, args...)...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	put := func(path, content string, mode os.FileMode) {
		t.Helper()
		path = filepath.Join(repo, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	put("go.mod", "module example.org/m\n\ngo 1.26\n", 0o644)
	put("a/a.go", "package a\n\nfunc Two() int { return 2 }\n", 0o644)
	put("a/a_test.go", "package a\n\nimport \"testing\"\n\nfunc TestTwo(t *testing.T) {\n\tif Two() != 2 {\n\t\tt.Error(\"not two\")\n\t}\n}\n", 0o644)
	put("b/b.go", "package b\n", 0o644)
	put("Makefile", "hello:\n\t@echo hello from make\nenvironment:\n\t@echo the environment:; env\nfails:\n\t@exit 7\n", 0o644)
	git("init", "--quiet", "--initial-branch=main")
	git("add", ".")
	git("commit", "--quiet", "-m", "one")
	git("branch", "old")
	old = git("rev-parse", "HEAD")
	put("a/a.go", "package a\n\nfunc Two() int { return 3 }\n", 0o644)
	git("commit", "--quiet", "-am", "two")
	head = git("rev-parse", "HEAD")
	for _, hook := range []string{"post-checkout", "post-merge", "reference-transaction"} {
		put(".git/hooks/"+hook, "#!/bin/sh\ntouch "+filepath.Join(root, "hooked")+"\n", 0o755)
	}
	if os.Geteuid() == 0 { // another user's: Git refuses that unless it is told
		err := filepath.WalkDir(repo, func(path string, _ os.DirEntry, err error) error {
			return os.Lchown(path, 65534, 65534)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return repo, old, head
}

func shippedKinds(t *testing.T, o Options) map[string]taskrunner.Kind {
	t.Helper()
	recipes, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	kinds, err := Kinds(recipes, o)
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

func TestGoBuildBuildsAndTestsARepository(t *testing.T) {
	root, work := t.TempDir(), t.TempDir()
	repo, old, _ := repository(t, root)
	kinds := shippedKinds(t, Options{WorkDir: work, RepoRoots: []string{root}})
	o := do(t, kinds, "go-build", map[string]any{"repo": repo, "ref": "old"})
	if o.failure.Code != "" {
		t.Fatalf("%v\n%s", o.failure, strings.Join(o.log, "\n"))
	}
	var names []string
	for _, s := range o.result.Steps {
		names = append(names, s.Name)
		if s.ExitCode != 0 || s.DurationMS < 0 {
			t.Errorf("step %+v", s)
		}
	}
	if want := []string{"init", "fetch", "checkout", "commit", "list", "vet", "build", "test"}; !slices.Equal(names, want) {
		t.Errorf("steps %q, want %q", names, want)
	}
	if o.result.Values["commit"] != old {
		t.Errorf("commit %q, want %q", o.result.Values["commit"], old)
	}
	if !slices.ContainsFunc(o.events, func(e string) bool { return strings.HasPrefix(e, "2/2 ") }) {
		t.Errorf("no progress of 2 packages of 2 in %q", o.events)
	}
	if !slices.ContainsFunc(o.log, func(l string) bool { return strings.HasPrefix(l, "ok  \texample.org/m/a\t") }) {
		t.Errorf("log\n%s", strings.Join(o.log, "\n"))
	}
	wantEmpty(t, work)
	if _, err := os.Stat(filepath.Join(root, "hooked")); err == nil {
		t.Error("a hook of the repository was run")
	}
}

func TestGoBuildFailsWithItsTests(t *testing.T) {
	root := t.TempDir()
	repo, _, head := repository(t, root)
	kinds := shippedKinds(t, Options{WorkDir: t.TempDir(), RepoRoots: []string{root}})
	o := do(t, kinds, "go-build", map[string]any{"repo": repo, "ref": head, "packages": []string{"./a"}})
	if o.failure.Code != wire.CodeFailed || o.failure.Message != `step "test" failed with exit code 1` {
		t.Errorf("got %v", o.failure)
	}
	if !slices.Contains(o.events, "1/1 "+lastWith(o.log, "FAIL\texample.org/m/a")) {
		t.Errorf("a failed package counts as done too: %q", o.events)
	}
}

func lastWith(log []string, prefix string) (line string) {
	for _, l := range log {
		if strings.HasPrefix(l, prefix) {
			line = l
		}
	}
	return line
}

func TestMakeMakesATarget(t *testing.T) {
	root := t.TempDir()
	repo, _, head := repository(t, root)
	kinds := shippedKinds(t, Options{WorkDir: t.TempDir(), RepoRoots: []string{root}})
	o := do(t, kinds, "make", map[string]any{"repo": repo, "target": "hello"})
	if o.result.Values["commit"] != head || !slices.Contains(o.log, "hello from make") {
		t.Errorf("got %v, %v, log %q", o.result, o.failure, o.log)
	}
	o = do(t, kinds, "make", map[string]any{"repo": repo, "target": "fails"})
	if o.failure.Message != `step "make" failed with exit code 2` {
		t.Errorf("got %v", o.failure)
	}
}

// What the shipped recipes refuse, before they start anything.
func TestShippedRecipesRefuseBadParameters(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	repo, _, _ := repository(t, root)
	link := filepath.Join(root, "link")
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	kinds := shippedKinds(t, Options{WorkDir: t.TempDir(), RepoRoots: []string{root}})
	type try struct {
		named  string // the parameter that must be to blame
		params map[string]any
	}
	var all []try
	for _, a := range attacks {
		all = append(all,
			try{"repo", map[string]any{"repo": a.value}},
			try{"ref", map[string]any{"repo": repo, "ref": a.value}},
			try{"packages", map[string]any{"repo": repo, "packages": []any{a.value}}},
			try{"repo", map[string]any{"repo": a.value, "target": "x"}},
			try{"ref", map[string]any{"repo": repo, "ref": a.value, "target": "x"}},
			try{"target", map[string]any{"repo": repo, "target": a.value}})
	}
	for _, p := range []string{link, outside, filepath.Join(repo, "../.."), filepath.Join(repo, "go.mod"), repo + "/none", "repo", "/etc/passwd"} {
		all = append(all, try{"repo", map[string]any{"repo": p}}, try{"repo", map[string]any{"repo": p, "target": "x"}})
	}
	all = append(all,
		try{"packages", map[string]any{"repo": repo, "packages": []string{}}},
		try{"packages", map[string]any{"repo": repo, "packages": []string{"./a/../../b"}}},
		try{"packages", map[string]any{"repo": repo, "packages": []string{"std"}}},
		try{"packages", map[string]any{"repo": repo, "packages": "./a"}},
		try{"target", map[string]any{"repo": repo, "target": "SHELL=/x"}},
		try{"repo", map[string]any{}})
	for _, try := range all {
		kind := "go-build"
		if _, ok := try.params["target"]; ok {
			kind = "make"
		}
		t.Run(kind+"/"+fmt.Sprintf("%.60q", asJSON(try.params)), func(t *testing.T) {
			o := do(t, kinds, kind, try.params)
			if o.failure.Code != wire.CodeBadParams || !strings.Contains(o.failure.Message, try.named) || len(o.events)+len(o.log) > 0 {
				t.Errorf("got %v, %q, %q; want bad_params for %s, before anything is started", o.failure, o.events, o.log, try.named)
			}
		})
	}
}

// The path of the repository itself is taken without symbolic links, so that what was checked is
// what is used.
func TestARepositoryIsTakenByItsRealPath(t *testing.T) {
	root := t.TempDir()
	repo, _, _ := repository(t, root)
	link := filepath.Join(root, "link")
	if err := os.Symlink(repo, link); err != nil {
		t.Fatal(err)
	}
	got, err := within([]string{root}, link)
	if err != nil || got != repo {
		t.Errorf("got %q, %v", got, err)
	}
}

// A repository may have any name that a directory can: for Git it is a path, whatever it looks like.
func TestARepositoryWithAHostileNameIsOnlyARepository(t *testing.T) {
	for _, name := range []string{"--upload-pack=touch hooked", "ext::sh -c touch% hooked", "file:x", "user@host:x", "a\nb; $(touch hooked)", "'\"`*?[~", "\u202e\x1b]0;x\a"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			root, work := t.TempDir(), t.TempDir()
			repo, _, head := repository(t, root)
			named := filepath.Join(root, name)
			if err := os.Rename(repo, named); err != nil {
				t.Fatal(err)
			}
			o := do(t, shippedKinds(t, Options{WorkDir: work, RepoRoots: []string{root}}), "make", map[string]any{"repo": named, "target": "hello"})
			if o.result.Values["commit"] != head || !slices.Contains(o.log, "hello from make") {
				t.Errorf("got %v, %v, log %q", o.result, o.failure, o.log)
			}
			if _, err := os.Stat(filepath.Join(root, "hooked")); err == nil {
				t.Error("a part of the name was run")
			}
			if line := lastWith(o.log, "$ git fetch "); strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) {
				t.Errorf("the log shows the name as %q", line)
			}
		})
	}
}

// What the runner knows stays with it: of its environment a shipped recipe's programs have what the recipe lists.
func TestShippedRecipesHideTheRunnersEnvironment(t *testing.T) {
	root := t.TempDir()
	repo, _, _ := repository(t, root)
	secret := []string{"AMQP_URL", "LD_PRELOAD", "BASH_ENV", "ENV", "IFS", "MAKEFLAGS", "GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF", "GIT_CONFIG_COUNT", "GIT_DIR", "SSH_AUTH_SOCK", "AWS_SECRET_ACCESS_KEY"}
	environ := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + root, "LANG=C.UTF-8"}
	for _, name := range secret {
		environ = append(environ, name+"=/secret")
	}
	kinds := shippedKinds(t, Options{WorkDir: t.TempDir(), RepoRoots: []string{root}, Environ: environ})
	o := do(t, kinds, "make", map[string]any{"repo": repo, "target": "environment"})
	var names []string
	for _, line := range o.log[slices.Index(o.log, "the environment:")+1:] {
		name, value, _ := strings.Cut(line, "=")
		if strings.Contains(value, "secret") {
			t.Errorf("the target has %s", line)
		}
		names = append(names, name)
	}
	// make and the shell of the target have some of their own
	names = slices.DeleteFunc(names, func(n string) bool {
		return strings.HasPrefix(n, "MAKE") || slices.Contains([]string{"MFLAGS", "PWD", "OLDPWD", "SHLVL", "_"}, n)
	})
	want := []string{"GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_TERMINAL_PROMPT", "HOME", "LANG", "PATH", "TMPDIR"}
	if slices.Sort(names); !slices.Equal(names, want) {
		t.Errorf("the target has %q (%v), want %q", names, o.failure, want)
	}
}
