package main

import (
	"os"
	"path/filepath"
)

// The kinds that the figures of tasks run, beside countdown: each is one program.
const (
	trivialRecipe = `kind: trivial
about: does nothing
params: {type: object, additionalProperties: false}
steps: [{name: nothing, argv: [/bin/true]}]
`
	linesRecipe = `kind: lines
about: writes numbered lines of 100 bytes as fast as it can
params:
  type: object
  additionalProperties: false
  properties: {count: {type: integer, minimum: 1, maximum: 100000000, default: 1}}
output_limit_bytes: 2147483648
steps: [{name: write, argv: [/usr/bin/seq, -f, "%099.0f", "1", "{count}"]}]
`
)

// recipes writes the kinds into the lab and returns the runner's setting that names them.
func (l *lab) recipes() (string, error) {
	files := map[string]string{"trivial.yaml": trivialRecipe, "lines.yaml": linesRecipe}
	setting := "WSCLUSTER_RECIPES="
	for _, name := range []string{"trivial.yaml", "lines.yaml"} {
		path := filepath.Join(l.Dir, name)
		if err := os.WriteFile(path, []byte(files[name]), 0o600); err != nil {
			return "", err
		}
		if name != "trivial.yaml" {
			setting += ","
		}
		setting += path
	}
	return setting, nil
}
