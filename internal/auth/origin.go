// Package auth says who may connect.
package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Origins are the web origins whose pages may open a socket, as a browser writes them:
// "https://build.example". The zero value allows only pages that this host served itself.
type Origins struct{ list []string }

// ParseOrigins checks each origin: scheme and host, a port unless it is the scheme's own, and
// nothing else; "*" alone stands for every origin.
func ParseOrigins(list []string) (Origins, error) {
	for _, o := range list {
		if o == "*" {
			continue
		}
		u, err := url.Parse(o)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || o != u.Scheme+"://"+strings.ToLower(u.Host) {
			return Origins{}, fmt.Errorf(`origin %.100q must be scheme and host as a browser sends them, as in "https://build.example:8443"`, o)
		}
	}
	return Origins{slices.Clone(list)}, nil
}

// Allow reports whether a handshake with these headers for this host may go on. The comparison
// is exact (RFC 6455 section 10.2, RFC 6454 section 7). A request without an Origin does not come
// from a page, and a page's cookies cannot be abused by it: it is allowed.
func (o Origins) Allow(h http.Header, host string) bool {
	origins := h.Values("Origin")
	switch {
	case len(origins) == 0:
		return true
	case len(origins) > 1:
		return false
	case len(o.list) > 0:
		return slices.Contains(o.list, "*") || slices.Contains(o.list, origins[0])
	}
	return origins[0] == "http://"+host || origins[0] == "https://"+host
}
