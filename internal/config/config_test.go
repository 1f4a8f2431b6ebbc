package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

type testConfig struct {
	Logging
	ServerID socketmeta.ServerID `config:"server_id,required" usage:"name of this worker"`
	Listen   string              `config:"listen" usage:"address"`
	AMQPURL  []string            `config:"amqp_url,file" usage:"brokers"`
	MetaKeys []string            `config:"meta_keys,secret" usage:"keys"`
	Window   time.Duration       `config:"resume_window" usage:"how long a client may be away"`
	Slots    int                 `config:"slots" usage:"places"`
	Debug    bool                `config:"debug" usage:"more"`
}

func (c *testConfig) Validate() error {
	var errs []error
	if c.Window <= 0 {
		errs = append(errs, Invalid("resume_window", "%v must be above 0", c.Window))
	}
	if c.Slots > 100 {
		errs = append(errs, Invalid("slots", "%d must be at most 100", c.Slots))
	}
	return errors.Join(errs...)
}

func defaults() testConfig {
	return testConfig{Logging: DefaultLogging(), Listen: ":9001", Window: 10 * time.Minute, Slots: 2}
}

// load loads a file (none if empty) with these variables and flags.
func load(t *testing.T, yaml string, environ []string, args ...string) (testConfig, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if yaml != "" {
		write(t, "w.yaml", yaml)
		args = append(args, "--config=w.yaml")
	}
	c := defaults()
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs, &c)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return c, Load(&c, fs, environ)
}

func write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFlagBeatsEnvironmentBeatsFileBeatsDefault(t *testing.T) {
	got, err := load(t,
		"server_id: i1-w1\nlisten: file\nresume_window: 1m\nslots: 5\ndebug: true\namqp_url: [a, b]\nlog_level: debug\n",
		[]string{"WSCLUSTER_LISTEN=env", "WSCLUSTER_RESUME_WINDOW=2m", "WSCLUSTER_AMQP_URL=c, d", "WSCLUSTER_SLOTS=", "HOME=/x"},
		"--resume-window=3m")
	if err != nil {
		t.Fatal(err)
	}
	want := testConfig{
		Logging:  Logging{LogFormat: "json", LogLevel: "debug"},
		ServerID: "i1-w1", Listen: "env", AMQPURL: []string{"c", "d"}, Window: 3 * time.Minute, Slots: 5, Debug: true,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestFileMayBeNamedByTheEnvironment(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "x.yaml"), "server_id: i1-w9\n")
	got, err := load(t, "", []string{"WSCLUSTER_CONFIG=" + path})
	if err != nil || got.ServerID != "i1-w9" {
		t.Errorf("got %q, %v", got.ServerID, err)
	}
}

func TestEmptyFileLeavesTheDefaults(t *testing.T) {
	got, err := load(t, "# nothing\n", []string{"WSCLUSTER_SERVER_ID=i1-w1"})
	want := defaults()
	want.ServerID = "i1-w1"
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestSecretsComeFromFilesWithoutTheirLineEnd(t *testing.T) {
	dir := t.TempDir()
	keys := write(t, filepath.Join(dir, "keys"), "k1:abc\nk2:def\r\n\n")
	url := write(t, filepath.Join(dir, "url"), "amqp://u:p@h/\n")
	got, err := load(t, "meta_keys_file: "+keys+"\nserver_id: a-b", []string{"WSCLUSTER_AMQP_URL_FILE=" + url})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"k1:abc", "k2:def"}; !slices.Equal(got.MetaKeys, want) {
		t.Errorf("meta_keys = %q, want %q", got.MetaKeys, want)
	}
	if want := []string{"amqp://u:p@h/"}; !slices.Equal(got.AMQPURL, want) {
		t.Errorf("amqp_url = %q, want %q", got.AMQPURL, want)
	}
}

func TestASecretIsNoFlag(t *testing.T) {
	fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
	Flags(fs, &testConfig{})
	if fs.Lookup("meta-keys") != nil || fs.Lookup("meta-keys-file") == nil {
		t.Error("want --meta-keys-file and no --meta-keys")
	}
}

// Every refusal is one line that names the source, the key, what is wrong and what would do.
func TestBadConfigurationNamesKeySourceAndRemedy(t *testing.T) {
	for _, tt := range []struct {
		name    string
		yaml    string
		environ []string
		args    []string
		want    string
	}{
		{"unknown key in the file", "listen: x\nlisen: y\n", nil, nil, `w.yaml:2: lisen: there is no such key; remove it, or use one of amqp_url, amqp_url_file, debug`},
		{"unknown variable", "", []string{"WSCLUSTER_LISEN=y"}, nil, `WSCLUSTER_LISEN: there is no such key; unset it, or use one of WSCLUSTER_AMQP_URL,`},
		{"variable in lower case", "", []string{"WSCLUSTER_listen=y"}, nil, `WSCLUSTER_listen: there is no such key`},
		{"missing", "", nil, nil, `default: server_id: must be set: by --server-id, WSCLUSTER_SERVER_ID, or server_id in the file`},
		{"text type", "server_id: w1\n", nil, nil, `w.yaml:1: server_id: not a server ID: "w1" must be <instance>-<worker>`},
		{"duration without unit", "\nresume_window: 600\n", nil, nil, `w.yaml:2: resume_window: "600" must be a duration with a unit, as in "10m"`},
		{"duration in the environment", "", []string{"WSCLUSTER_RESUME_WINDOW=600"}, nil, `WSCLUSTER_RESUME_WINDOW: resume_window: "600" must be a duration with a unit`},
		{"number", "slots: many\n", nil, nil, `w.yaml:1: slots: "many" must be a whole number that fits int`},
		{"map", "listen: {a: b}\n", nil, nil, `w.yaml:1: listen: "map[a:b]" must be a text`},
		{"list", "listen: [a, b]\n", nil, nil, `w.yaml:1: listen: "[a b]" must be a text`},
		{"empty value", "listen:\n", nil, nil, `w.yaml:1: listen: "<nil>" must be a text`},
		{"boolean", "", []string{"WSCLUSTER_DEBUG=perhaps"}, nil, `WSCLUSTER_DEBUG: debug: "perhaps" must be true or false`},
		{"validation of a file's key", "slots: 101\n", []string{"WSCLUSTER_SERVER_ID=i1-w1"}, nil, `w.yaml:1: slots: 101 must be at most 100`},
		{"validation of a flag", "", []string{"WSCLUSTER_SERVER_ID=i1-w1"}, []string{"--resume-window=-1s"}, `--resume-window: resume_window: -1s must be above 0`},
		{"not YAML", "a: [\n", nil, nil, `w.yaml: yaml: line `},
		{"twice the same key", "listen: a\nlisten: b\n", nil, nil, `w.yaml: yaml: `},
		{"not a mapping", "- a\n", nil, nil, `w.yaml: line 1: the file must hold keys and values`},
		{"no such file", "", nil, []string{"--config=none.yaml"}, `--config: cannot be read: `},
		{"no such secret file", "meta_keys_file: none\n", nil, nil, `w.yaml:1: meta_keys_file: cannot be read: open none`},
		{"value and file", "amqp_url_file: none\n", []string{"WSCLUSTER_AMQP_URL=x"}, nil, `w.yaml:1: amqp_url_file: amqp_url is set as well (WSCLUSTER_AMQP_URL); set one of the two`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.yaml, tt.environ, tt.args...)
			if err == nil || !slices.ContainsFunc(strings.Split(err.Error(), "\n"), func(line string) bool { return strings.HasPrefix(line, tt.want) }) {
				t.Errorf("got\n%v\nwant a line that begins with\n%s", err, tt.want)
			}
			if ExitCode(err) != ExitConfig {
				t.Errorf("exit code %d, want %d", ExitCode(err), ExitConfig)
			}
		})
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	_, err := load(t, "lisen: y\nslots: many\n", []string{"WSCLUSTER_RESUME_WINDOW=x"})
	if n := len(strings.Split(err.Error(), "\n")); n != 4 { // and server_id
		t.Errorf("%d lines, want 4:\n%v", n, err)
	}
}

func TestASecretIsNeverShown(t *testing.T) {
	_, err := load(t, "meta_keys: {hush: hush}\n", nil)
	if err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

func FuzzFile(f *testing.F) {
	f.Add("listen: :9001\nslots: 3\n")
	f.Add("a: {b: [c, *d]}\n? x\n: y\n")
	f.Add("1: 2\nnull: x\n!!binary aGk=: b\n<<: {listen: x}\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, yaml string) {
		path := filepath.Join(dir, "f.yaml")
		if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
			t.Fatal(err)
		}
		c := defaults()
		fs := pflag.NewFlagSet("fuzz", pflag.ContinueOnError)
		Flags(fs, &c)
		if err := Load(&c, fs, []string{"WSCLUSTER_CONFIG=" + path}); err != nil && ExitCode(err) != ExitConfig {
			t.Errorf("exit code %d for %v", ExitCode(err), err)
		}
	})
}
