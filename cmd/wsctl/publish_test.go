package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const grantKeys = "k1 0123456789abcdef0123456789abcdef\n"

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestTokenPrintsAGrantThatWorkersTake(t *testing.T) {
	code, grant, stderr := execute(t, "token", "--keys-file", file(t, grantKeys), "--subscribe", "news.*,team", "--publish", "news.go", "--ttl", "10m")
	if code != config.ExitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	keys, err := socketmeta.ParseKeys([]byte(grantKeys))
	if err != nil {
		t.Fatal(err)
	}
	grants, err := auth.NewGrants(keys, nil)
	if err != nil {
		t.Fatal(err)
	}
	grant = strings.TrimSuffix(grant, "\n")
	now := time.Now()
	for what, err := range map[string]error{
		"subscribe to news.rust": grants.AllowSubscribe(grant, "news.rust", now),
		"subscribe to team":      grants.AllowSubscribe(grant, "team", now),
		"publish to news.go":     grants.AllowPublish(grant, []wire.Channel{"news.go"}, now.Add(9*time.Minute)),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"publish to news.rust": grants.AllowPublish(grant, []wire.Channel{"news.rust"}, now),
		"ask":                  grants.AllowAsk(grant, now),
		"subscribe later":      grants.AllowSubscribe(grant, "team", now.Add(11*time.Minute)),
	} {
		if err == nil {
			t.Errorf("%s: allowed", what)
		}
	}
}

func TestTokenRefusesWhatMakesNoGrant(t *testing.T) {
	keys := file(t, grantKeys)
	for name, test := range map[string]struct {
		args []string
		want string
	}{
		"nothing allowed":  {[]string{"--keys-file", keys}, "a grant for nothing"},
		"a wrong pattern":  {[]string{"--keys-file", keys, "--publish", "a*b"}, `pattern "a*b"`},
		"no time":          {[]string{"--keys-file", keys, "--ask", "--ttl", "0s"}, "--ttl 0s"},
		"no such file":     {[]string{"--keys-file", keys + "x", "--ask"}, "no such file"},
		"a file of no key": {[]string{"--keys-file", file(t, "\n"), "--ask"}, "no key"},
	} {
		code, out, stderr := execute(t, append([]string{"token"}, test.args...)...)
		if code != config.ExitConfig || out != "" || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: exit code %d, %q, %q; want %d and %q", name, code, out, stderr, config.ExitConfig, test.want)
		}
	}
}

// backend is a worker that keeps what was published to it, or refuses it.
func backend(t *testing.T, refuse *wire.Error) (url string, got *string) {
	t.Helper()
	got = new(string)
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		*got = fmt.Sprintf("%s %s?%s %s %s %v", r.Method, r.URL.Path, r.URL.RawQuery, r.Header.Get("Authorization"), body, err)
		if refuse != nil {
			rw.WriteHeader(http.StatusServiceUnavailable)
			_ = json.NewEncoder(rw).Encode(refuse)
			return
		}
		rw.WriteHeader(http.StatusAccepted)
	}))
	t.Cleanup(func() {
		s.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return s.URL, got
}

func TestPublishPostsTheBodyOrStandardInput(t *testing.T) {
	url, got := backend(t, nil)
	code, _, stderr := execute(t, "publish", "news", "news.go", "--url", url+"/", "--grant-file", file(t, "the-grant\n"), "--name", "note", "--key", "a b", "--body", "{}")
	if want := "POST /v1/publish?channel=news&channel=news.go&key=a+b&name=note Bearer the-grant {} <nil>"; code != 0 || *got != want {
		t.Errorf("exit code %d (%s), the worker got\n%s, want\n%s", code, stderr, *got, want)
	}

	t.Setenv(grantVariable, "from-env")
	c := command()
	c.SetIn(strings.NewReader("{\"a\":\n1}\n"))
	var out, errs bytes.Buffer
	code = config.Execute(t.Context(), c, []string{"publish", "news", "--url", url}, &out, &errs)
	if want := "POST /v1/publish?channel=news&key=&name= Bearer from-env {\"a\":\n1} <nil>"; code != 0 || *got != want {
		t.Errorf("exit code %d (%s), the worker got\n%s, want\n%s", code, errs.String(), *got, want)
	}
}

func TestPublishSaysWhyItWasRefused(t *testing.T) {
	url, _ := backend(t, wire.Errorf(wire.CodeOverloaded, "posts come faster"))
	grant := file(t, "g")
	code, _, stderr := execute(t, "publish", "news", "--url", url, "--grant-file", grant, "--body", "1")
	if code != config.ExitFailed || !strings.Contains(stderr, "overloaded: posts come faster") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	code, _, stderr = execute(t, "publish", "news", "--url", serve(t, ""), "--grant-file", grant, "--body", "1")
	if code != config.ExitFailed || !strings.Contains(stderr, "404") {
		t.Errorf("of no worker: exit code %d, %q", code, stderr)
	}
	code, _, stderr = execute(t, "publish", "news", "--url", "127.0.0.1:9001", "--grant-file", grant, "--body", "1")
	if code != config.ExitConfig || !strings.Contains(stderr, "--url") {
		t.Errorf("a URL without a scheme: exit code %d, %q", code, stderr)
	}
	t.Setenv(grantVariable, "")
	code, _, stderr = execute(t, "publish", "news", "--url", url, "--body", "1")
	if code != config.ExitConfig || !strings.Contains(stderr, "wsctl token") {
		t.Errorf("without a grant: exit code %d, %q", code, stderr)
	}
}
