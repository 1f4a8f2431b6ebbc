package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
)

func TestExecuteMapsErrorsToExitCodes(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string
		err    error
		code   int
		stderr string
	}{
		{"no error", []string{"run"}, nil, ExitOK, ""},
		{"any error", []string{"run"}, errors.New("it broke"), ExitFailed, "prog: it broke\n"},
		{"the broker", []string{"run"}, WithExit(ExitBroker, errors.New("away")), ExitBroker, "prog: away\n"},
		{"two lines", []string{"run"}, WithExit(ExitConfig, errors.Join(errors.New("a"), errors.New("b"))), ExitConfig, "prog: a\nprog: b\n"},
		{"unknown flag", []string{"run", "--nope"}, nil, ExitUsage, "prog: unknown flag: --nope; see prog --help\n"},
		{"unknown command", []string{"walk"}, nil, ExitUsage, "prog: unknown command \"walk\" for \"prog\"; see prog --help\n"},
		{"argument", []string{"run", "x"}, nil, ExitUsage, "prog: unknown command \"x\" for \"prog run\"; see prog --help\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := &cobra.Command{Use: "prog"}
			root.AddCommand(&cobra.Command{Use: "run", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return tt.err }})
			var stdout, stderr bytes.Buffer
			if code := Execute(t.Context(), root, tt.args, &stdout, &stderr); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if stderr.String() != tt.stderr {
				t.Errorf("stderr %q, want %q", stderr.String(), tt.stderr)
			}
		})
	}
}

func TestLoggerWritesOneJSONObjectALine(t *testing.T) {
	var out bytes.Buffer
	log, err := DefaultLogging().NewLogger(&out)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not this")
	log.Info("up", zap.String("server_id", "i1-w1"))
	var line struct{ Time, Level, Msg, Server_ID string }
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line.Msg != "up" || line.Level != "info" || line.Server_ID != "i1-w1" || !strings.HasSuffix(line.Time, "Z") {
		t.Errorf("got %+v", line)
	}
}

func TestLoggerRefusesWhatItDoesNotKnow(t *testing.T) {
	for want, l := range map[string]Logging{
		`log_format: "xml" must be json or console`:             {LogFormat: "xml", LogLevel: "info"},
		`log_level: "loud" must be debug, info, warn or error`:  {LogFormat: "json", LogLevel: "loud"},
		`log_level: "fatal" must be debug, info, warn or error`: {LogFormat: "json", LogLevel: "fatal"},
	} {
		if _, err := l.NewLogger(&bytes.Buffer{}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
