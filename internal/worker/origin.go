package worker

import (
	"net/http"
	"strings"

	"github.com/wscluster/wscluster/pkg/wire"
)

// crossOrigin lets the pages of the allowed origins, and of no others, use what is under /v1/ and /api/, as
// the handshake does for sockets: a browser asks for leave (CORS, fetch.spec.whatwg.org) where WebSocket does
// not. Cookies of other origins are not asked for: affinity goes by X-Route there.
func (w *Worker) crossOrigin(next http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/") && !strings.HasPrefix(r.URL.Path, "/api/") {
			next.ServeHTTP(rw, r)
			return
		}
		h := rw.Header()
		h.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		switch {
		case origin == "":
			next.ServeHTTP(rw, r)
		case !w.o.Origins.Allow(r.Header, r.Host):
			problem(rw, wire.Errorf(wire.CodeForbidden, "pages of this origin may not connect; the operator's key origins lists those that may"))
		default:
			h.Set("Access-Control-Allow-Origin", origin)
			h.Set("Access-Control-Expose-Headers", "Accept-Ranges, Content-Range, ETag, Location, Retry-After")
			if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
				next.ServeHTTP(rw, r)
				return
			}
			h.Set("Access-Control-Allow-Methods", "GET, POST, DELETE")
			h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Range, X-Route, "+tokenHeader)
			h.Set("Access-Control-Max-Age", "600")
			rw.WriteHeader(http.StatusNoContent)
		}
	})
}
