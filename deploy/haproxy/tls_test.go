package haproxy_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// certificate writes a self-signed certificate and its key into one file and returns its path.
func certificate(t *testing.T, dir string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"site.example"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "site.pem")
	text := slices.Concat(
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWithACertificateEverythingIsTLS(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		secure := ln.Addr().String()
		_ = ln.Close()
		c := start(t, config, map[string]string{"WSS_CERT": certificate(t, t.TempDir()), "WSS_BIND": secure}, "i1-w1", "i2-w1")

		plain := ask(t, request{addr: c.Addr, path: "/x?y=1"})
		if got := plain.header.Get("Location"); plain.status != http.StatusPermanentRedirect || got != "https://site.example/x?y=1" {
			t.Errorf("plain http: got status %d to %q, want 308 to https", plain.status, got)
		}
		first := open(t, request{addr: secure, tls: true})
		if config == cookieConfig {
			set := first.cookie()
			if set == nil || !set.Secure {
				t.Fatalf("the 101 sets %v, want a Secure cookie", set)
			}
			if again := open(t, request{addr: secure, tls: true, cookie: set.Value}); again.worker != first.worker {
				t.Errorf("came back to %s, want %s", again.worker, first.worker)
			}
		}
		if !first.echoes() {
			t.Error("the socket does not work")
		}
		for _, r := range c.workers[first.worker].requests() {
			if got := r.Header.Get("X-Forwarded-Proto"); got != "https" {
				t.Errorf("X-Forwarded-Proto: got %q, want https", got)
			}
		}
		c.awaitLog(t, "the socket over TLS", func(l logLine) bool { return strings.HasPrefix(l.TLS, "TLSv1") && l.Worker == first.worker })
	})
}
