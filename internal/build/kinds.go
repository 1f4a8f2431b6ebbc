package build

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/wscluster/wscluster/internal/guard"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"go.uber.org/zap"
)

//go:embed recipes
var shipped embed.FS

// Options says where recipes run. The zero value is a good default.
type Options struct {
	WorkDir   string        // where each task gets a directory of its own; "" means the system's for temporary files
	RepoRoots []string      // directories that local-repository parameters may lie in; none means no repository
	Environ   []string      // what recipes may copy from; nil means the process's own
	Cgroup    *guard.Cgroup // where each step gets a control group of its own; nil means guards alone (docs/adr/0013)
	Log       *zap.Logger   // nil logs nothing
}

// Shipped returns the recipes that come with wscluster: go-build and make.
func Shipped() ([]*Recipe, error) {
	files, err := shipped.ReadDir("recipes")
	if err != nil {
		return nil, err
	}
	var all []*Recipe
	for _, f := range files {
		data, err := shipped.ReadFile("recipes/" + f.Name())
		if err != nil {
			return nil, err
		}
		r, err := ParseRecipe(data)
		if err != nil {
			return nil, fmt.Errorf("recipe %s: %w", f.Name(), err)
		}
		all = append(all, r)
	}
	return all, nil
}

// ReadRecipes reads recipes from files. The error joins what is wrong with them.
func ReadRecipes(paths []string) ([]*Recipe, error) {
	var all []*Recipe
	var errs []error
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r, err := ParseRecipe(data)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			continue
		}
		all = append(all, r)
	}
	return all, errors.Join(errs...)
}

// Kinds makes the recipes ready to run, and adds the kind countdown. For a recipe that cannot run
// here, because a program is missing, it joins an error and leaves the kind out: the others may
// be used all the same. An error of the options leaves out all.
func Kinds(recipes []*Recipe, o Options) (map[string]taskrunner.Kind, error) {
	o, err := o.resolved()
	if err != nil {
		return nil, err
	}
	kinds := map[string]taskrunner.Kind{CountdownKind: {Handler: taskrunner.HandlerFunc(countdown), Schema: []byte(countdownSchema)}}
	var errs []error
	for _, r := range recipes {
		h, err := newHandler(r, o)
		if err == nil && kinds[r.Kind].Handler != nil {
			err = errors.New("the kind is there already")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("recipe %s: %w", r.Kind, err))
			continue
		}
		kinds[r.Kind] = taskrunner.Kind{Handler: h, Schema: h.params.text, Timeout: r.Timeout, Retries: r.Retries, Fence: r.Fence, Steps: uint32(len(r.Steps))}
	}
	return kinds, errors.Join(errs...)
}

// resolved fills in the defaults and finds the real paths.
func (o Options) resolved() (Options, error) {
	o.Log = cmp.Or(o.Log, zap.NewNop())
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	var err error
	if o.WorkDir, err = realDir(cmp.Or(o.WorkDir, os.TempDir())); err != nil {
		return o, fmt.Errorf("work directory: %w", err)
	}
	roots := make([]string, len(o.RepoRoots))
	for i, root := range o.RepoRoots {
		if roots[i], err = realDir(root); err != nil {
			return o, fmt.Errorf("repository root: %w", err)
		}
	}
	o.RepoRoots = roots
	return o, nil
}

func realDir(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s is not a directory", path)
	}
	return path, err
}
