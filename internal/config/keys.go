package config

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

const (
	envPrefix  = "WSCLUSTER_"
	configKey  = "config" // names the file; not a key of it
	fileSuffix = "_file"
	delimiter  = "." // koanf's, for nesting; no key of ours nests
)

// key is one field of a configuration.
type key struct {
	name     string // as in the file
	usage    string
	required bool // must be set if the field is zero
	file     bool // has a sister key that names a file
	secret   bool // is no flag
	value    reflect.Value
}

func (k key) envName() string { return envName(k.name) }

// flagName is how a user would set k on the command line.
func (k key) flagName() string {
	if k.secret {
		return "--" + dashes(k.name+fileSuffix)
	}
	return "--" + dashes(k.name)
}

func envName(name string) string { return envPrefix + strings.ToUpper(name) }
func dashes(name string) string  { return strings.ReplaceAll(name, "_", "-") }

// split makes a list of text where the key is a list.
func (k key) split(text, by string) any {
	if k.value.Kind() != reflect.Slice {
		return text
	}
	var list []string
	for item := range strings.SplitSeq(text, by) {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}

// keysOf lists the fields of cfg in their order. It panics on a struct that is not as the package
// comment says: that is a fault of the program, found by its first run.
func keysOf(cfg any) []key {
	var keys []key
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		for field, value := range v.Fields() {
			tag, ok := field.Tag.Lookup("config")
			if !ok {
				if field.Anonymous {
					walk(value)
				}
				continue
			}
			options := strings.Split(tag, ",")
			k := key{name: options[0], usage: field.Tag.Get("usage"), value: value}
			for _, o := range options[1:] {
				switch o {
				case "required":
					k.required = true
				case "file":
					k.file = true
				case "secret":
					k.file, k.secret = true, true
				default:
					panic(fmt.Sprintf("config: field %s has the unknown option %q", field.Name, o))
				}
			}
			keys = append(keys, k)
		}
	}
	walk(reflect.ValueOf(cfg).Elem())
	return keys
}

// Flags adds --config and one flag for each key of cfg to fs. The defaults that help shows are
// those which cfg holds now; the flags do not write to cfg, Load does.
func Flags(fs *pflag.FlagSet, cfg any) {
	fs.String(configKey, "", "YAML file with any of these as keys, resume_window for --resume-window")
	for _, k := range keysOf(cfg) {
		if k.file {
			fs.String(dashes(k.name+fileSuffix), "", "file that holds "+k.name+": "+k.usage)
		}
		if k.secret {
			continue
		}
		name := dashes(k.name)
		switch v := k.value.Interface().(type) {
		case time.Duration:
			fs.Duration(name, v, k.usage)
		case bool:
			fs.Bool(name, v, k.usage)
		case int:
			fs.Int(name, v, k.usage)
		case int64:
			fs.Int64(name, v, k.usage)
		case []string:
			fs.StringSlice(name, v, k.usage)
		default:
			fs.String(name, k.value.String(), k.usage)
		}
	}
}
