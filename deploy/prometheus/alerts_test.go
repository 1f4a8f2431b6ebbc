package prometheus_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

var metricName = regexp.MustCompile(`\bwscluster_[a-z0-9_]+`)

// TestAlertsNameMetricsThatExist reads the rules as Prometheus would, and looks for each metric in the sources.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	raw, err := os.ReadFile("alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	d := yaml.NewDecoder(strings.NewReader(string(raw)))
	d.KnownFields(true)
	if err := d.Decode(&file); err != nil {
		t.Fatal(err)
	}
	known, rules, seen := metrics(t), 0, map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules++
			if r.Alert == "" || seen[r.Alert] || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("rule %q lacks a name of its own, a severity, a summary or a description", r.Alert)
			}
			seen[r.Alert] = true
			names := metricName.FindAllString(r.Expr+r.Annotations["description"], -1)
			if len(names) == 0 {
				t.Errorf("%s: its expression names no metric", r.Alert)
			}
			for _, name := range names {
				if !known[name] {
					t.Errorf("%s: there is no metric %s", r.Alert, name)
				}
			}
			if strings.Count(r.Expr, "(") != strings.Count(r.Expr, ")") {
				t.Errorf("%s: the brackets do not match", r.Alert)
			}
		}
	}
	if rules < 2 || len(known) < 10 {
		t.Errorf("%d rules and %d metrics: the test looks in the wrong place", rules, len(known))
	}
}

// metrics are the names that the sources register: string literals of nothing else.
func metrics(t *testing.T) map[string]bool {
	t.Helper()
	literal := regexp.MustCompile(`"(wscluster_[a-z0-9_]+)"`)
	found := map[string]bool{}
	for _, dir := range []string{"../../internal", "../../pkg", "../../cmd"} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range literal.FindAllSubmatch(text, -1) {
				found[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}
