package web

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"testing"
)

func get(t *testing.T, target string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest("GET", target, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestHandlerServesThePageAndItsParts(t *testing.T) {
	for target, want := range map[string]string{
		"/":                    "text/html; charset=utf-8",
		"/console/main.js":     "text/javascript; charset=utf-8",
		"/console/main.css":    "text/css; charset=utf-8",
		"/console/favicon.svg": "image/svg+xml",
	} {
		res := get(t, target)
		if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != want {
			t.Errorf("GET %s: got %d %q, want 200 %q", target, res.StatusCode, res.Header.Get("Content-Type"), want)
		}
		if csp := res.Header.Get("Content-Security-Policy"); csp != policy {
			t.Errorf("GET %s: got policy %q", target, csp)
		}
		if got := res.Header.Get("X-Content-Type-Options"); got != "nosniff" {
			t.Errorf("GET %s: got X-Content-Type-Options %q", target, got)
		}
	}
	for _, target := range []string{"/index.html", "/console/", "/console/index.html", "/console/../web.go", "/v1/ws"} {
		if res := get(t, target); res.StatusCode == http.StatusOK {
			t.Errorf("GET %s: got 200", target)
		}
	}
}

func TestHandlerRefusesOtherMethods(t *testing.T) {
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest("POST", "/", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /: got %d, want 405", w.Code)
	}
	w = httptest.NewRecorder()
	Handler().ServeHTTP(w, httptest.NewRequest("HEAD", "/", nil))
	if w.Code != http.StatusOK || w.Body.Len() != 0 || w.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD /: got %d with %d bytes, Content-Length %q", w.Code, w.Body.Len(), w.Header().Get("Content-Length"))
	}
}

func TestUnchangedPartsAreNotSentAgain(t *testing.T) {
	first := get(t, "/console/main.js")
	tag := first.Header.Get("ETag")
	again := get(t, "/console/main.js", "If-None-Match", tag)
	if tag == "" || again.StatusCode != http.StatusNotModified {
		t.Errorf("If-None-Match %s: got %d, want 304", tag, again.StatusCode)
	}
	if got := first.Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("got Cache-Control %q, want no-cache", got)
	}
	if other := get(t, "/console/main.css", "If-None-Match", tag); other.StatusCode != http.StatusOK {
		t.Errorf("another file's tag: got %d, want 200", other.StatusCode)
	}
}

func TestCompressedIsTheSame(t *testing.T) {
	plain, err := io.ReadAll(get(t, "/console/main.js").Body)
	if err != nil {
		t.Fatal(err)
	}
	res := get(t, "/console/main.js", "Accept-Encoding", "br, gzip")
	if got := res.Header.Get("Content-Encoding"); got != "gzip" {
		t.Fatalf("got Content-Encoding %q, want gzip", got)
	}
	z, err := gzip.NewReader(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	unzipped, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(plain, unzipped) {
		t.Errorf("the compressed answer holds %d bytes, the plain one %d (error %v)", len(unzipped), len(plain), err)
	}
}

func TestWholePageIsSmallAndSelfContained(t *testing.T) {
	const limitBytes = 60 << 10
	total := 0
	outside := regexp.MustCompile(`(?i)https?://[^"'\s)]+`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script>|javascript:`)
	for name, a := range assets() {
		total += len(a.gzip)
		for _, url := range outside.FindAllString(string(a.plain), -1) {
			if !regexp.MustCompile(`^http://www\.w3\.org/`).MatchString(url) { // names of XML namespaces, never fetched
				t.Errorf("%s names %s", name, url)
			}
		}
		if name == "index.html" && inline.Match(a.plain) {
			t.Errorf("%s holds inline script or style, which the policy refuses", name)
		}
	}
	t.Logf("%d bytes gzip", total)
	if total > limitBytes {
		t.Errorf("the page has %d bytes gzip, want at most %d", total, limitBytes)
	}
}
