// Package config turns flags, environment, a YAML file and defaults into one struct, and errors
// into exit codes. Every program of wscluster is configured through it, so that a key has one
// name everywhere: resume_window in the file is WSCLUSTER_RESUME_WINDOW in the environment and
// --resume-window as a flag, and the earlier of flag, environment, file and default wins.
//
// A configuration is a struct that holds its defaults before Load and whose fields carry tags:
//
//	type Config struct {
//		config.Logging                                             // its keys are this struct's keys
//		ServerID socketmeta.ServerID `config:"server_id,required" usage:"name of this worker"`
//		Window   time.Duration       `config:"resume_window" usage:"how long a client may be away"`
//		AMQPURL  []string            `config:"amqp_url,file" usage:"brokers, tried in turn"`
//		MetaKeys []string            `config:"meta_keys,secret" usage:"keys that sign the token"`
//	}
//
// Fields are strings, booleans, whole numbers, time.Duration, []string, or string types that read
// themselves (encoding.TextUnmarshaler). With the option file the key has a sister, amqp_url_file,
// which names a file that holds the value: one line, or one line for each value of a list. With
// secret too, and then the value itself is no flag, for ps shows flags to everybody. No message
// of this package shows the value of such a key.
package config

import (
	"encoding"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Load fills cfg, a pointer to a struct as above, from the command line (fs, parsed, with the
// flags of Flags), the environment (as os.Environ gives it) and the file that --config or
// WSCLUSTER_CONFIG names. An empty variable counts as unset. Then it calls cfg's Validate() error,
// if it has one, which names keys with Invalid.
//
// The error joins all that is wrong, one line each: where the value comes from, the key, what is
// wrong with it and what would do. It carries ExitConfig.
func Load(cfg any, fs *pflag.FlagSet, environ []string) error {
	keys := keysOf(cfg)
	s := newSources(keys)
	s.read(fs, environ)
	var given []string // keys that have a value which was read well
	for _, k := range keys {
		if s.decode(k) {
			given = append(given, k.name)
		}
	}
	for _, k := range keys {
		_, tried := s.where[k.name]
		if k.required && !tried && !slices.Contains(given, k.name) && k.value.IsZero() {
			s.problem(k.name, "must be set: by %s, %s, or %s in the file", k.flagName(), k.envName(), k.name)
		}
	}
	if v, ok := cfg.(interface{ Validate() error }); ok && len(s.problems) == 0 {
		for _, err := range flatten(v.Validate()) {
			if bad, ok := errors.AsType[*invalid](err); ok {
				s.problem(bad.key, "%s", bad.what)
			} else {
				s.problems = append(s.problems, err)
			}
		}
	}
	return WithExit(ExitConfig, errors.Join(s.problems...))
}

// Invalid says what is wrong with the value of a key and what would do. Load adds where the value
// came from.
func Invalid(key, format string, args ...any) error {
	return &invalid{key, fmt.Sprintf(format, args...)}
}

type invalid struct{ key, what string }

func (e *invalid) Error() string { return e.key + ": " + e.what }

// flatten takes errors.Join apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, flatten(e)...)
	}
	return all
}

// decode sets k's field from the value of its highest source and reports whether it did.
func (s *sources) decode(k key) bool {
	raw := s.values.Get(k.name)
	if file := k.name + fileSuffix; k.file && s.values.Exists(file) {
		if s.values.Exists(k.name) {
			s.problem(file, "%s is set as well (%s); set one of the two", k.name, s.where[k.name])
			return false
		}
		path, ok := s.values.Get(file).(string)
		if !ok {
			s.problem(file, "must be the name of a file")
			return false
		}
		content, err := os.ReadFile(path)
		if err != nil {
			s.problem(file, "cannot be read: %v", err)
			return false
		}
		raw, s.where[k.name] = k.split(strings.TrimRight(string(content), "\r\n"), "\n"), s.where[file]+": "+path
	} else if !s.values.Exists(k.name) {
		return false
	}
	if err := k.set(raw); err != nil {
		s.problem(k.name, "%v", err)
		return false
	}
	return true
}

// set converts raw, a value of YAML, of a flag or of the environment, to the field's type.
func (k key) set(raw any) error {
	shown := fmt.Sprintf("%q ", fmt.Sprint(raw))
	if k.file {
		shown = "the value " // may be a secret
	}
	text, isText := raw.(string)
	field := k.value.Addr().Interface()
	switch f := field.(type) {
	case encoding.TextUnmarshaler:
		if isText && !k.file {
			return f.UnmarshalText([]byte(text))
		} else if isText && f.UnmarshalText([]byte(text)) == nil {
			return nil
		}
		return errors.New(shown + "cannot be read")
	case *time.Duration:
		if !isText { // a bare number would be nanoseconds
			return errors.New(shown + `must be a duration with a unit, as in "10m"`)
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return errors.New(shown + `must be a duration with a unit, as in "10m"`)
		}
		*f = d
		return nil
	}
	scratch := koanf.New(delimiter)
	err := scratch.Set("v", raw)
	if err == nil && raw != nil {
		switch kind := reflect.TypeOf(raw).Kind(); {
		case kind == reflect.Map, kind == reflect.Slice && k.value.Kind() != reflect.Slice:
			err = errors.ErrUnsupported
		default:
			err = scratch.Unmarshal("v", field)
		}
	}
	if err != nil || raw == nil {
		return fmt.Errorf("%smust be %s", shown, k.wants())
	}
	return nil
}

func (k key) wants() string {
	switch k.value.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list of texts"
	case reflect.String:
		return "a text"
	default:
		return fmt.Sprintf("a whole number that fits %s", k.value.Kind())
	}
}
