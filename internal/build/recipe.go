// Package build runs recipes: a recipe says for one kind of task which programs to start, one
// after the other, and what of the task's parameters they are given. It owns the processes: their
// arguments, workspace, environment, limits and end. It hands what they say to package taskrunner.
//
// No shell is involved anywhere: a step is an argument vector, and a parameter becomes one
// argument, or one for each element of a list, whatever characters it holds. The recipe is the
// operator's and is trusted; the parameters are a stranger's and are not.
//
// What a build itself runs (a Makefile, a test) is the repository's code, with the rights of the
// runner.
package build

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.yaml.in/yaml/v3"
)

// Recipe is how the tasks of one kind are done. docs/guides/operator.md shows one; the keys in the
// file are these fields, in snake_case.
type Recipe struct {
	Kind  string `yaml:"kind"`
	About string `yaml:"about"` // one line for people: the title of the schema that is announced, unless Params has one

	// Params is a JSON Schema of the parameters, an object with additionalProperties false. Each
	// property that a step uses is a string, integer or boolean, or an array of such, and bounded:
	// a string by maxLength or enum, an array by maxItems. A default fills in what is missing. A
	// string with format local-repository is the absolute path of a directory that lies in one of
	// the runner's repository roots; the step gets its path without symbolic links.
	Params map[string]any `yaml:"params"`

	Timeout          time.Duration `yaml:"timeout"`            // of the whole; 0 means 1 hour
	Grace            time.Duration `yaml:"grace"`              // from SIGTERM to SIGKILL; 0 means 10 s
	Retries          int           `yaml:"retries"`            // after how many starts at most a failure or timeout is not told, but the task run again; at most 9
	Fence            time.Duration `yaml:"fence"`              // without a broker for so long the task is given up; 0 means the runner's
	OutputLimitBytes int64         `yaml:"output_limit_bytes"` // of all steps together; 0 means 64 MiB

	Programs []string          `yaml:"programs"` // what steps may start by name, found on the runner's PATH
	Env      Env               `yaml:"env"`
	Files    map[string]string `yaml:"files"` // written to the workspace before the first step, by relative path
	Steps    []Step            `yaml:"steps"`
}

// Env is the whole environment of the steps; beside it there is only TMPDIR, in the workspace.
type Env struct {
	Copy []string          `yaml:"copy"` // names taken over from the runner, where it has them
	Set  map[string]string `yaml:"set"`  // a value that begins with {workspace} has its path there
}

// Step is one process.
type Step struct {
	Name string `yaml:"name"` // what the client sees; unique in the recipe

	// Argv is the program, an absolute path or one of Programs, and its arguments. An argument may
	// hold one parameter: {name} alone, or behind a fixed beginning as in --ref={name}. Alone, a
	// list becomes one argument for each element, and what is missing becomes none; and unless a
	// "--" stands somewhere before it, a value that is empty or begins with a dash is refused.
	Argv []string `yaml:"argv"`

	Dir      string        `yaml:"dir"`      // relative to the workspace
	Timeout  time.Duration `yaml:"timeout"`  // 0 means what is left of the whole
	Capture  string        `yaml:"capture"`  // the first line of the output is this value of the result
	Progress *Progress     `yaml:"progress"` // how the output tells how far the step is
}

// Progress counts lines of output.
type Progress struct {
	Match   string `yaml:"match"`    // a regular expression (RE2): what matches is one unit done
	TotalOf string `yaml:"total_of"` // an earlier step that counts: its count is this one's total
}

// ParseRecipe reads a recipe from YAML. The error tells all that is wrong with it, one line each.
func ParseRecipe(data []byte) (*Recipe, error) {
	r := &Recipe{}
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(r); err != nil {
		return nil, errors.New(strings.ReplaceAll(strings.TrimPrefix(err.Error(), "yaml: "), "\n", " "))
	}
	if err := d.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document: put each recipe into a file of its own")
	}
	if err := r.validate(); err != nil {
		return nil, err
	}
	r.Timeout = cmp.Or(r.Timeout, time.Hour)
	r.Grace = cmp.Or(r.Grace, 10*time.Second)
	r.OutputLimitBytes = cmp.Or(r.OutputLimitBytes, 64<<20)
	return r, nil
}

func (r *Recipe) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := wire.CheckKind(r.Kind); err != nil {
		wrong("kind: %w", err)
	}
	for name, d := range map[string]time.Duration{"timeout": r.Timeout, "grace": r.Grace} {
		if d < 0 {
			wrong("%s: %v must not be negative", name, d)
		}
	}
	if r.Fence != 0 && (r.Fence < time.Second || r.Fence > taskrunner.MaxFence) {
		wrong("fence: %v must be between 1s and %v", r.Fence, taskrunner.MaxFence)
	}
	if r.Retries < 0 || r.Retries >= taskrunner.DefaultAttempts {
		wrong("retries: %d must be between 0 and %d", r.Retries, taskrunner.DefaultAttempts-1)
	}
	if r.OutputLimitBytes < 0 {
		wrong("output_limit_bytes: %d must not be negative", r.OutputLimitBytes)
	}
	params, err := newParams(r.Params, nil)
	if err != nil {
		wrong("params: %w", err)
	}
	for _, name := range r.Env.Copy {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			wrong("env: copy: %q is not the name of a variable", name)
		}
	}
	for name := range r.Env.Set {
		if name == "" || strings.ContainsAny(name, "=\x00") {
			wrong("env: set: %q is not the name of a variable", name)
		}
	}
	for path := range r.Files {
		if !filepath.IsLocal(path) {
			wrong("files: %q must be a path within the workspace", path)
		}
	}
	if len(r.Steps) == 0 {
		wrong("steps: there must be at least one")
	}
	var names, counting []string
	for i, s := range r.Steps {
		wrong := func(format string, args ...any) {
			wrong("steps: %d (%s): "+format, append([]any{i + 1, s.Name}, args...)...)
		}
		switch {
		case s.Name == "":
			wrong("must have a name")
		case slices.Contains(names, s.Name):
			wrong("has the name of another step")
		}
		names = append(names, s.Name)
		if err := r.checkArgv(s.Argv, params); err != nil {
			wrong("argv: %w", err)
		}
		if s.Dir != "" && !filepath.IsLocal(s.Dir) {
			wrong("dir: %q must be a path within the workspace", s.Dir)
		}
		if s.Timeout < 0 {
			wrong("timeout: %v must not be negative", s.Timeout)
		}
		if p := s.Progress; p != nil {
			if _, err := regexp.Compile(p.Match); err != nil || p.Match == "" {
				wrong("progress: match: %q must be a regular expression (RE2)", p.Match)
			}
			if p.TotalOf != "" && !slices.Contains(counting, p.TotalOf) {
				wrong("progress: total_of: %q is no earlier step that has progress", p.TotalOf)
			}
			counting = append(counting, s.Name)
		}
	}
	return errors.Join(errs...)
}

func (r *Recipe) checkArgv(argv []string, p *params) error {
	if len(argv) == 0 {
		return errors.New("there must be at least a program")
	}
	if !filepath.IsAbs(argv[0]) && !slices.Contains(r.Programs, argv[0]) {
		return fmt.Errorf("%q must be an absolute path or one of programs", argv[0])
	}
	args, err := parseTemplate(argv)
	if err != nil || p == nil {
		return err
	}
	for _, a := range args {
		if a.param == "" {
			continue
		}
		if err := p.usable(a); err != nil {
			return err
		}
	}
	return nil
}
