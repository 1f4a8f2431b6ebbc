package build

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/wscluster/wscluster/pkg/wire"
)

// arg is one argument of a template: text, and behind it at most one parameter.
type arg struct {
	text  string // all of it, or what stands before the parameter
	param string // "" if there is none
	free  bool   // a "--" stands before it, so that no value can be an option
}

// hole finds anything that looks like a parameter; only the last thing of an argument may.
var hole = regexp.MustCompile(`\{([a-z][a-z0-9_]*)\}`)

// parseTemplate reads the arguments of a step. The first is the program and holds no parameter.
func parseTemplate(argv []string) ([]arg, error) {
	args := make([]arg, len(argv))
	free := false
	for i, s := range argv {
		if strings.Contains(s, "\x00") {
			return nil, fmt.Errorf("%q holds NUL, which no argument can", s)
		}
		a := arg{text: s, free: free}
		if at := hole.FindStringSubmatchIndex(s); at != nil {
			a.text, a.param = s[:at[0]], s[at[2]:at[3]]
			switch {
			case i == 0:
				return nil, fmt.Errorf("%q: the program cannot be a parameter", s)
			case at[1] != len(s):
				return nil, fmt.Errorf("%q: a parameter must be the whole argument or the end of it", s)
			case strings.HasPrefix(a.text, "-") && !strings.HasSuffix(a.text, "="):
				return nil, fmt.Errorf(`%q: between an option and its parameter there must be a "=", or make them two arguments`, s)
			}
		}
		free = free || s == "--"
		args[i] = a
	}
	return args, nil
}

// expand puts values into the template. Every value is within one argument, as it is. The error
// is a *wire.Error with code bad_params: a value that cannot be an argument, or could be taken for
// an option.
func expand(args []arg, values map[string]any) ([]string, error) {
	var argv []string
	for _, a := range args {
		if a.param == "" {
			argv = append(argv, a.text)
			continue
		}
		value, ok := values[a.param]
		if !ok {
			continue
		}
		list, isList := value.([]any)
		if !isList {
			list = []any{value}
		}
		for _, v := range list {
			text, err := argText(v)
			if err != nil {
				return nil, badParams("%s: %v", a.param, err)
			}
			if a.text == "" && !a.free && (text == "" || text[0] == '-') {
				return nil, badParams("%s: %q must not be empty or begin with a dash", a.param, text)
			}
			argv = append(argv, a.text+text)
		}
	}
	return argv, nil
}

// argText is a value of JSON as an argument.
func argText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		if strings.Contains(v, "\x00") {
			return "", fmt.Errorf("%q holds NUL", v)
		}
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return fmt.Sprint(v), nil
	}
	return "", fmt.Errorf("must be a text, a number or a boolean, not %T", v)
}

func badParams(format string, args ...any) error {
	return &wire.Error{Code: wire.CodeBadParams, Message: fmt.Sprintf(format, args...)}
}
