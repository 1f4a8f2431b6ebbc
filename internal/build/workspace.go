package build

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// workspace is the directory of one run. It can be read by the runner's user alone, and holds tmp.
type workspace struct {
	path   string
	parent *os.Root // what is done to the workspace cannot leave it by symbolic links
	name   string
}

// newWorkspace makes the directory name below parent, with these files in it.
func newWorkspace(parent, name string, files map[string]string) (_ *workspace, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("workspace %s: %w", filepath.Join(parent, name), err)
		}
	}()
	root, err := os.OpenRoot(parent)
	if err != nil {
		return nil, err
	}
	w := &workspace{path: filepath.Join(parent, name), parent: root, name: name}
	if err := root.Mkdir(name, 0o700); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		err = errors.Join(err, root.MkdirAll(filepath.Join(name, filepath.Dir(path)), 0o700),
			root.WriteFile(filepath.Join(name, path), []byte(files[path]), 0o600))
	}
	if err = errors.Join(err, root.MkdirAll(filepath.Join(name, "tmp"), 0o700)); err != nil {
		return nil, errors.Join(err, w.remove())
	}
	return w, nil
}

// dir returns the path of rel, a directory of the workspace. What the repository or a step before has put
// in its way cannot lead elsewhere: a symbolic link that leaves the workspace is an error, and so is what
// is no directory.
func (w *workspace) dir(rel string) (string, error) {
	if info, err := w.parent.Lstat(w.name); err != nil || !info.IsDir() {
		return "", errors.New("the workspace is gone")
	}
	root, err := w.parent.OpenRoot(w.name)
	if err != nil {
		return "", err
	}
	info, err := root.Stat(filepath.Clean(rel))
	switch {
	case err != nil:
		err = fmt.Errorf("directory %q: %w", rel, err)
	case !info.IsDir():
		err = fmt.Errorf("%q is no directory", rel)
	}
	return filepath.Join(w.path, rel), errors.Join(err, root.Close())
}

// remove deletes the workspace with all that is in it, also what a build has made read-only.
func (w *workspace) remove() error {
	err := w.parent.RemoveAll(w.name)
	if err != nil {
		// Best effort: what cannot be opened for writing shows in the second try.
		_ = fs.WalkDir(w.parent.FS(), w.name, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() {
				return w.parent.Chmod(path, 0o700)
			}
			return nil
		})
		err = w.parent.RemoveAll(w.name)
	}
	return errors.Join(err, w.parent.Close())
}

// environment is what the steps see of the runner's own: what the recipe lists, and nothing else.
func (w *workspace) environment(e Env, runner []string) []string {
	vars := map[string]string{"TMPDIR": filepath.Join(w.path, "tmp")}
	for _, v := range runner {
		if name, value, ok := strings.Cut(v, "="); ok && slices.Contains(e.Copy, name) {
			vars[name] = value
		}
	}
	for name, value := range e.Set {
		if rest, ok := strings.CutPrefix(value, "{workspace}"); ok {
			value = w.path + rest
		}
		vars[name] = value
	}
	var env []string
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		env = append(env, name+"="+vars[name])
	}
	return env
}
