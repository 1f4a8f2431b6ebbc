// Package web owns the console: one page that submits tasks and shows each step, line and result live.
// The page itself is TypeScript (src/), built by go generate into dist/, and embedded here.
//
// It knows nothing of workers: it serves files, and the page speaks docs/PROTOCOL.md to whatever serves
// it, at /v1/ws, and asks it for the kinds and the client's tasks over HTTP.
package web

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed dist
var dist embed.FS

// policy allows what the page uses: its own script, style and icon, and requests to its own origin.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// contentTypes are fixed: the mime package asks the machine's own tables.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// asset is one file as it is sent. It does not change while the process lives.
type asset struct {
	contentType string
	etag        string
	plain       []byte
	gzip        []byte
}

// Handler serves the page at / and its parts under /console/; everything else is 404, and other methods
// than GET and HEAD are 405. Answers are revalidated on each use (no-cache with an ETag), so that a new
// build of the program shows at once. The handler is safe for concurrent use.
func Handler() http.Handler {
	mux := http.NewServeMux()
	for name, a := range assets() {
		if name == "index.html" {
			mux.Handle("GET /{$}", a)
			continue
		}
		mux.Handle("GET /console/"+name, a)
	}
	return mux
}

var assets = sync.OnceValue(func() map[string]asset {
	files, err := dist.ReadDir("dist")
	if err != nil {
		panic("web: the embedded console cannot be read: " + err.Error())
	}
	all := make(map[string]asset, len(files))
	for _, f := range files {
		plain, err := dist.ReadFile("dist/" + f.Name())
		if err != nil {
			panic("web: the embedded console cannot be read: " + err.Error())
		}
		all[f.Name()] = newAsset(f.Name(), plain)
	}
	return all
})

func newAsset(name string, plain []byte) asset {
	var zipped bytes.Buffer
	w, _ := gzip.NewWriterLevel(&zipped, gzip.BestCompression) // the level is valid
	w.Write(plain)                                             // a bytes.Buffer takes all
	w.Close()
	sum := sha256.Sum256(plain)
	return asset{
		contentType: contentTypes[path.Ext(name)],
		etag:        `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`,
		plain:       plain,
		gzip:        zipped.Bytes(),
	}
}

func (a asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", a.etag)
	if strings.Contains(r.Header.Get("If-None-Match"), a.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	body := a.plain
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		h.Set("Content-Encoding", "gzip")
		body = a.gzip
	}
	h.Set("Content-Type", a.contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method != http.MethodHead {
		w.Write(body) // the client is gone if it fails: nobody to tell
	}
}
