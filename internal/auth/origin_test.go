package auth_test

import (
	"net/http"
	"testing"

	"github.com/wscluster/wscluster/internal/auth"
)

func TestOriginIsComparedExactly(t *testing.T) {
	for _, c := range []struct {
		name    string
		allowed []string
		origin  []string
		want    bool
	}{
		{"no page", []string{"https://a.example"}, nil, true},
		{"a listed page", []string{"https://a.example"}, []string{"https://a.example"}, true},
		{"another scheme", []string{"https://a.example"}, []string{"http://a.example"}, false},
		{"another port", []string{"https://a.example"}, []string{"https://a.example:8443"}, false},
		{"a longer name", []string{"https://a.example"}, []string{"https://a.example.evil.example"}, false},
		{"another case", []string{"https://a.example"}, []string{"https://A.example"}, false},
		{"a sandboxed page", []string{"https://a.example"}, []string{"null"}, false},
		{"an empty origin", nil, []string{""}, false},
		{"two origins", nil, []string{"http://host:1", "http://host:1"}, false},
		{"the host's own page", nil, []string{"http://host:1"}, true},
		{"the host's own page behind TLS", nil, []string{"https://host:1"}, true},
		{"the host is not enough where a list is given", []string{"https://a.example"}, []string{"http://host:1"}, false},
		{"another host", nil, []string{"http://other:1"}, false},
		{"everybody", []string{"*"}, []string{"https://b.example"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, err := auth.ParseOrigins(c.allowed)
			if err != nil {
				t.Fatal(err)
			}
			if got := o.Allow(http.Header{"Origin": c.origin}, "host:1"); got != c.want {
				t.Errorf("Allow(%q) with %q = %v, want %v", c.origin, c.allowed, got, c.want)
			}
		})
	}
}

func TestBadOriginsAreRefused(t *testing.T) {
	for _, bad := range []string{"", "a.example", "https://", "https://a.example/", "https://A.example", "ftp://a.example", "https://a.example?x", "https://u@a.example", "https://*.example/x"} {
		if _, err := auth.ParseOrigins([]string{bad}); err == nil {
			t.Errorf("ParseOrigins(%q) was accepted", bad)
		}
	}
}
