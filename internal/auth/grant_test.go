package auth_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

var now = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)

func grants(t *testing.T, keys socketmeta.Keys, open ...string) auth.Grants {
	t.Helper()
	g, err := auth.NewGrants(keys, open)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func signed(t *testing.T, keys socketmeta.Keys, g auth.Grant) string {
	t.Helper()
	if g.Expires.IsZero() {
		g.Expires = now.Add(time.Hour)
	}
	s, err := auth.SignGrant(keys, g)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// codeOf is the code of a refusal, "" for none.
func codeOf(err error) wire.Code {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	} else if err != nil {
		return wire.Code("no wire.Error: " + err.Error())
	}
	return ""
}

func TestAnOpenChannelNeedsNoGrant(t *testing.T) {
	g := grants(t, socketmeta.Keys{}, "workflow.*", "workflows", "engine")
	for channel, want := range map[wire.Channel]wire.Code{
		"workflow.t1": "", "workflow.": "", "workflows": "", "engine": "",
		"workflow": wire.CodeForbidden, "workflows2": wire.CodeForbidden, "engine.x": wire.CodeForbidden, "news": wire.CodeForbidden,
	} {
		if got := codeOf(g.AllowSubscribe("", channel, now)); got != want {
			t.Errorf("%s: got %q, want %q", channel, got, want)
		}
	}
	if err := g.AllowSubscribe("not.a.grant", "workflows", now); err != nil {
		t.Errorf("with a grant that is not good: %v; it is not needed", err)
	}
	if got := codeOf(g.AllowPublish("", []wire.Channel{"workflows"}, now)); got != wire.CodeUnauthorized {
		t.Errorf("publishing to an open channel: got %q, want unauthorized", got)
	}
	if got := codeOf(new(auth.Grants).AllowSubscribe("", "engine", now)); got != wire.CodeForbidden {
		t.Errorf("the zero value: got %q, want forbidden", got)
	}
}

func TestAGrantAllowsWhatItNamesAndNothingElse(t *testing.T) {
	keys := socketmeta.RandomKeys()
	g := grants(t, keys)
	grant := signed(t, keys, auth.Grant{Subject: "alice", Subscribe: []string{"news.*", "team-1"}, Publish: []string{"news.go"}})
	for channel, want := range map[wire.Channel][2]wire.Code{
		"news.go":   {"", ""},
		"news.rust": {"", wire.CodeForbidden},
		"team-1":    {"", wire.CodeForbidden},
		"team-11":   {wire.CodeForbidden, wire.CodeForbidden},
		"newsroom":  {wire.CodeForbidden, wire.CodeForbidden},
	} {
		got := [2]wire.Code{codeOf(g.AllowSubscribe(grant, channel, now)), codeOf(g.AllowPublish(grant, []wire.Channel{"news.go", channel}, now))}
		if got != want {
			t.Errorf("%s: got %q, want %q to subscribe and publish", channel, got, want)
		}
	}
	if got := codeOf(g.AllowAsk(grant, now)); got != wire.CodeForbidden {
		t.Errorf("to ask: got %q, want forbidden", got)
	}
	if err := g.AllowAsk(signed(t, keys, auth.Grant{Ask: true}), now); err != nil {
		t.Errorf("to ask, with a grant for it: %v", err)
	}
	all := signed(t, keys, auth.Grant{Publish: []string{"*"}})
	if err := g.AllowPublish(all, []wire.Channel{"anything", "workflows"}, now); err != nil {
		t.Errorf("with *: %v", err)
	}
}

func TestAGrantThatIsNotGoodIsUnauthorized(t *testing.T) {
	keys := socketmeta.RandomKeys()
	g := grants(t, keys)
	sign := func(claims map[string]any) string {
		if _, there := claims["exp"]; !there {
			claims["exp"] = now.Add(time.Hour).Unix()
		}
		s, err := keys.SignJWT(claims)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for name, grant := range map[string]string{
		"expired":             signed(t, keys, auth.Grant{Subscribe: []string{"*"}, Expires: now.Add(-time.Minute)}),
		"of other keys":       signed(t, socketmeta.RandomKeys(), auth.Grant{Subscribe: []string{"*"}}),
		"no JWT":              "grant",
		"a wrong pattern":     sign(map[string]any{"subscribe": []string{"a*b", "news"}}),
		"patterns are a text": sign(map[string]any{"subscribe": "*"}),
		"too many patterns":   sign(map[string]any{"subscribe": strings.Split(strings.Repeat("a,", 100)+"news", ",")}),
		"for another service": sign(map[string]any{"subscribe": []string{"*"}, "aud": "billing"}),
		"exp is null":         sign(map[string]any{"subscribe": []string{"*"}, "exp": nil}),
		"too large":           signed(t, keys, auth.Grant{Subscribe: []string{"*"}})[:20] + strings.Repeat("A", wire.MaxToken),
	} {
		for what, err := range map[string]error{
			"subscribe": g.AllowSubscribe(grant, "news", now), "publish": g.AllowPublish(grant, []wire.Channel{"news"}, now), "ask": g.AllowAsk(grant, now),
		} {
			if got := codeOf(err); got != wire.CodeUnauthorized {
				t.Errorf("%s: to %s got %q, want unauthorized", name, what, got)
			}
		}
	}
	ours := sign(map[string]any{"subscribe": []string{"news"}, "aud": []string{"billing", "wscluster"}})
	if err := g.AllowSubscribe(ours, "news", now); err != nil {
		t.Errorf("for two services, and this is one: %v", err)
	}
	without := grants(t, socketmeta.Keys{})
	if got := codeOf(without.AllowSubscribe(ours, "news", now)); got != wire.CodeUnauthorized {
		t.Errorf("a worker without grant keys: got %q, want unauthorized", got)
	}
}

func TestNobodySignsOrConfiguresAWrongPattern(t *testing.T) {
	keys := socketmeta.RandomKeys()
	for _, wrong := range []string{"", "a*b", "**", "*a", ".a*", "a b", "é*", strings.Repeat("a", wire.MaxChannel+1), strings.Repeat("a", wire.MaxChannel+1) + "*"} {
		if _, err := auth.NewGrants(keys, []string{"good", wrong}); err == nil {
			t.Errorf("open channels with %q: no error", wrong)
		}
		if _, err := auth.SignGrant(keys, auth.Grant{Publish: []string{wrong}, Expires: now}); err == nil {
			t.Errorf("a grant to publish to %q: no error", wrong)
		}
	}
	if _, err := auth.SignGrant(keys, auth.Grant{}); err == nil {
		t.Error("a grant without an end was signed")
	}
}

// FuzzGrants looks for a text that is allowed something though no key signed it, and for what cannot be handled.
func FuzzGrants(f *testing.F) {
	keys, err := socketmeta.ParseKeys([]byte("k 0123456789abcdef0123456789abcdef"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := auth.SignGrant(keys, auth.Grant{Subscribe: []string{"news.*"}, Expires: now.Add(time.Hour)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good, "news.a")
	f.Add(good+"x", "news.a")
	f.Add("eyJhbGciOiJub25lIn0.e30.", "workflows")
	f.Fuzz(func(t *testing.T, grant, channel string) {
		g := grants(t, keys, "workflows")
		c, err := wire.ParseChannel(channel)
		if err != nil || c == "workflows" {
			return
		}
		if err := g.AllowSubscribe(grant, c, now); err != nil {
			return
		}
		token, err := jwt.Parse(grant, func(*jwt.Token) (any, error) { return []byte("0123456789abcdef0123456789abcdef"), nil },
			jwt.WithValidMethods([]string{"HS256"}), jwt.WithoutClaimsValidation())
		if err != nil || !token.Valid {
			t.Errorf("%q was allowed %s: %v", grant, c, err)
		}
	})
}
