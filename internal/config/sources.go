package config

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
	yamlnode "go.yaml.in/yaml/v3"
)

// sources merges what was given, remembers where each value came from and collects what is wrong.
type sources struct {
	byName   map[string]key // the keys and their sisters
	values   *koanf.Koanf
	where    map[string]string // by name: "wsworker.yaml:3", "WSCLUSTER_LISTEN" or "--listen"
	problems []error
}

func newSources(keys []key) *sources {
	s := &sources{byName: map[string]key{}, values: koanf.New(delimiter), where: map[string]string{}}
	for _, k := range keys {
		s.byName[k.name] = k
		if k.file {
			s.byName[k.name+fileSuffix] = key{name: k.name + fileSuffix}
		}
	}
	return s
}

func (s *sources) problem(name, format string, args ...any) {
	where := s.where[name]
	if where == "" {
		where = "default"
	}
	s.problems = append(s.problems, fmt.Errorf("%s: %s: %s", where, name, fmt.Sprintf(format, args...)))
}

// read loads all sources, the weakest first.
func (s *sources) read(fs *pflag.FlagSet, environ []string) {
	given := koanf.New(delimiter) // environment and flags, which may name the file
	s.load(given, env.Provider(delimiter, env.Opt{
		Prefix:        envPrefix,
		EnvironFunc:   func() []string { return environ },
		TransformFunc: s.variable,
	}))
	s.load(given, posflag.ProviderWithFlag(fs, delimiter, nil, s.flag(fs)))
	if path := given.String(configKey); path != "" {
		s.file(path)
	}
	given.Delete(configKey)
	_ = s.values.Merge(given) // fails only with koanf's StrictMerge
}

func (s *sources) load(to *koanf.Koanf, p koanf.Provider) {
	if err := to.Load(p, nil); err != nil {
		s.problems = append(s.problems, err)
	}
}

// variable names the key of an environment variable; "" leaves it out.
func (s *sources) variable(variable, value string) (string, any) {
	name := strings.ToLower(strings.TrimPrefix(variable, envPrefix))
	k, known := s.byName[name]
	switch {
	case variable != envName(name) || !known && name != configKey:
		s.problems = append(s.problems, fmt.Errorf("%s: there is no such key; unset it, or use one of %s", variable, s.list(envName)))
		return "", nil
	case value == "":
		return "", nil
	case name == configKey:
		return name, value
	}
	s.where[name] = variable
	return name, k.split(value, ",")
}

// flag names the key of a flag that is set on the command line; "" leaves it out.
func (s *sources) flag(fs *pflag.FlagSet) func(*pflag.Flag) (string, any) {
	return func(f *pflag.Flag) (string, any) {
		name := strings.ReplaceAll(f.Name, "-", "_")
		if _, known := s.byName[name]; !f.Changed || !known && name != configKey {
			return "", nil
		}
		s.where[name] = "--" + f.Name
		value := posflag.FlagVal(fs, f)
		if f.Value.Type() == "duration" {
			value = f.Value.String()
		}
		return name, value
	}
}

// file loads a YAML file under what is there already.
func (s *sources) file(path string) {
	from := "--" + configKey
	if s.where[configKey] == "" {
		from = envName(configKey)
	}
	if _, err := os.Stat(path); err != nil {
		s.problems = append(s.problems, fmt.Errorf("%s: cannot be read: %w", from, err))
		return
	}
	if err := s.values.Load(file.Provider(path), &lines{sources: s, path: path}); err != nil {
		s.problems = append(s.problems, fmt.Errorf("%s: %w", path, err))
	}
}

// lines is koanf's YAML parser, and notes the line of each key on the way.
type lines struct {
	yaml.YAML
	*sources
	path string
}

func (l *lines) Unmarshal(b []byte) (map[string]any, error) {
	var doc yamlnode.Node
	if err := yamlnode.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	if doc.Kind == 0 {
		return nil, nil // an empty file
	}
	root := doc.Content[0]
	if root.Kind != yamlnode.MappingNode {
		return nil, fmt.Errorf("line %d: the file must hold keys and values, as in \"listen: :9001\"", root.Line)
	}
	values, err := l.YAML.Unmarshal(b)
	if err != nil {
		return nil, err
	}
	for n := range slices.Chunk(root.Content, 2) {
		name, where := n[0].Value, fmt.Sprintf("%s:%d", l.path, n[0].Line)
		if _, known := l.byName[name]; !known {
			l.problems = append(l.problems, fmt.Errorf("%s: %s: there is no such key; remove it, or use one of %s", where, name, l.list(strings.Clone)))
			delete(values, name)
			continue
		}
		if l.where[name] == "" { // else the environment or a flag wins
			l.where[name] = where
		}
	}
	return values, nil
}

// list tells all keys, spelled by spell.
func (s *sources) list(spell func(string) string) string {
	var all []string
	for name := range s.byName {
		all = append(all, spell(name))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
