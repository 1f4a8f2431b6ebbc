package haproxy_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

const (
	routeKey = "k1 5c1f6ad1c1b24d1b9a4c0b6e0f8e7d2a"
	newKey   = "k2 f00dfeedf00dfeedf00dfeedf00dfeed"
	otherKey = "k1 00000000000000000000000000000000" // somebody else's, of the same name
)

// keyFile writes what the workers' route_key_file holds and returns its path.
func keyFile(t *testing.T, dir string, keys ...string) string {
	t.Helper()
	path := filepath.Join(dir, "route.keys")
	if err := os.WriteFile(path, []byte("# route keys\n\n"+strings.Join(keys, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ticket signs a route ticket as a worker with this route_key_file would.
func ticket(t *testing.T, key, server string, life time.Duration) string {
	t.Helper()
	keys, err := socketmeta.ParseKeys([]byte(key))
	if err != nil {
		t.Fatal(err)
	}
	s, err := keys.SignRoute(socketmeta.Route{Server: socketmeta.ServerID(server), Expires: time.Now().Add(life)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// byTicket opens a socket with nothing but the ticket, and returns its worker.
func (c *cluster) byTicket(t *testing.T, ticket string) string {
	t.Helper()
	return open(t, request{addr: c.Addr, path: "/v1/ws?route=" + ticket}).worker
}

// startBusy starts two workers of which i1-w1 has so many sockets that only a good ticket leads there.
func startBusy(t *testing.T, keyFile string) *cluster {
	t.Helper()
	c := start(t, cookieConfig, map[string]string{"ROUTE_KEYS": keyFile}, "i1-w1", "i2-w1")
	for range 40 {
		c.byTicket(t, ticket(t, routeKey, "i1-w1", time.Minute))
	}
	if share := c.workers["i1-w1"].requests(); len(share) != 40 {
		t.Fatalf("%d of 40 tickets led to the worker they name", len(share))
	}
	return c
}

func TestRouteTicketLeadsToItsWorker(t *testing.T) {
	t.Parallel()
	c := startBusy(t, keyFile(t, t.TempDir(), routeKey))
	good := ticket(t, routeKey, "i1-w1", time.Minute)
	if got := open(t, request{addr: c.Addr, header: []string{"X-Route: " + good}}).worker; got != "i1-w1" {
		t.Errorf("X-Route led to %s, want i1-w1", got)
	}
	if got := ask(t, request{addr: c.Addr, path: "/v1/tasks?route=" + good}).worker; got != "i1-w1" {
		t.Errorf("the ticket of an API request led to %s, want i1-w1", got)
	}

	// The ticket beats the cookie.
	v := &visitor{addr: c.Addr, from: address(0)}
	if home := v.open(t).worker; home != "i2-w1" {
		t.Fatalf("balanced to %s, the busiest", home)
	}
	if got := open(t, request{addr: c.Addr, path: "/v1/ws?route=" + good, cookie: v.cookie}).worker; got != "i1-w1" {
		t.Errorf("a ticket for i1-w1 beside a cookie for i2-w1 led to %s", got)
	}
	c.awaitLog(t, "the ticket", func(l logLine) bool { return l.Ticket == "i1-w1" && l.Worker == "i1-w1" })
}

func TestBadRouteTicketIsBalanced(t *testing.T) {
	t.Parallel()
	c := startBusy(t, keyFile(t, t.TempDir(), routeKey))
	good := ticket(t, routeKey, "i1-w1", time.Minute)
	head, body, sign := split(good)
	other := b64(`{"srv":"i1-w1","exp":99999999999}`)
	claims := jwt.MapClaims{"srv": "i1-w1", "exp": time.Now().Add(time.Minute).Unix()}
	secret := []byte(strings.Fields(routeKey)[1])
	for name, bad := range map[string]string{
		"empty":                     "",
		"no ticket at all":          "i1-w1",
		"signed by another key":     ticket(t, otherKey, "i1-w1", time.Minute),
		"signed by an unknown key":  ticket(t, newKey, "i1-w1", time.Minute),
		"expired":                   ticket(t, routeKey, "i1-w1", -time.Second),
		"without signature":         head + "." + body + ".",
		"other claims":              head + "." + other + "." + sign,
		"alg none":                  b64(`{"alg":"none","kid":"k1"}`) + "." + body + ".",
		"alg none, signature kept":  b64(`{"alg":"none","kid":"k1"}`) + "." + body + "." + sign,
		"signed by HS384":           sign384(t, secret, claims),
		"kid of no line":            signed(t, "", secret, claims),
		"kid that is a path":        signed(t, "../k1", secret, claims),
		"no exp":                    signed(t, "k1", secret, jwt.MapClaims{"srv": "i1-w1"}),
		"exp that is no number":     signed(t, "k1", secret, jwt.MapClaims{"srv": "i1-w1", "exp": "never"}),
		"no srv":                    signed(t, "k1", secret, jwt.MapClaims{"exp": claims["exp"]}),
		"srv of no worker":          ticket(t, routeKey, "i7-w7", time.Minute),
		"srv that is another place": signed(t, "k1", secret, jwt.MapClaims{"srv": "st_ws", "exp": claims["exp"]}),
		"long":                      strings.Repeat("a", 4000) + "." + body + "." + sign,
	} {
		if got := c.byTicket(t, bad); got != "i2-w1" {
			t.Errorf("%s: led to %s, the busiest", name, got)
		}
	}
	if got := c.byTicket(t, good); got != "i1-w1" {
		t.Errorf("afterwards a good ticket led to %s, want i1-w1", got)
	}
}

func TestTicketOfADrainingWorkerLeadsElsewhere(t *testing.T) {
	t.Parallel()
	c := startBusy(t, keyFile(t, t.TempDir(), routeKey))
	c.workers["i1-w1"].draining.Store(true)
	if got := c.byTicket(t, ticket(t, routeKey, "i1-w1", time.Minute)); got != "i2-w1" {
		t.Errorf("led to %s, which drains", got)
	}
}

func TestRouteKeysRotateByReload(t *testing.T) {
	dir := t.TempDir()
	c := startBusy(t, keyFile(t, dir, routeKey))
	byOld, byNew := ticket(t, routeKey, "i1-w1", time.Minute), ticket(t, newKey, "i1-w1", time.Minute)
	for _, step := range []struct {
		keys         []string
		oldTo, newTo string
	}{
		{[]string{newKey, routeKey}, "i1-w1", "i1-w1"},
		{[]string{newKey}, "i2-w1", "i1-w1"},
	} {
		keyFile(t, dir, step.keys...)
		c.reload(t)
		// The new process counts its own sockets only: make i1-w1 the busiest again.
		for range 10 {
			c.byTicket(t, byNew)
		}
		if got := c.byTicket(t, byOld); got != step.oldTo {
			t.Errorf("with %d keys the old key's ticket led to %s, want %s", len(step.keys), got, step.oldTo)
		}
		if got := c.byTicket(t, byNew); got != step.newTo {
			t.Errorf("with %d keys the new key's ticket led to %s, want %s", len(step.keys), got, step.newTo)
		}
	}
}

func TestTicketMeansNothingWithoutKeys(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
	good := ticket(t, routeKey, "i1-w1", time.Minute)
	if a, b := c.byTicket(t, good), c.byTicket(t, good); a == b {
		t.Errorf("both sockets are on %s, want them balanced", a)
	}
}

func split(ticket string) (head, body, sign string) {
	parts := strings.Split(ticket, ".")
	return parts[0], parts[1], parts[2]
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

func signed(t *testing.T, kid string, secret []byte, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	token.Header["kid"] = kid
	s, err := token.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func sign384(t *testing.T, secret []byte, claims jwt.MapClaims) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS384, claims)
	token.Header["kid"] = "k1"
	s, err := token.SignedString(secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
