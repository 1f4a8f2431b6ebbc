package socketmeta

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

var (
	issued  = time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	expires = issued.Add(30 * time.Minute)
)

func testToken() Token {
	return Token{
		Meta:     Meta{Client: NewClientID(), Server: "i1-w3", Epoch: Epoch(issued.UnixMilli())},
		Subject:  "alice@example.org",
		IssuedAt: issued,
		Expires:  expires,
	}
}

func testRoute() Route { return Route{Server: "i1-w3", Expires: expires} }

// ticket is a signed ticket and the call that should or should not take it.
type ticket struct {
	text   string
	verify func(Keys, string, time.Time) error
}

func tickets(t testing.TB, keys Keys) map[string]ticket {
	t.Helper()
	token, err := keys.SignToken(testToken())
	if err != nil {
		t.Fatal(err)
	}
	route, err := keys.SignRoute(testRoute())
	if err != nil {
		t.Fatal(err)
	}
	return map[string]ticket{"token": {token, verifyToken}, "route": {route, verifyRoute}}
}

func verifyToken(k Keys, s string, now time.Time) error {
	token, err := k.VerifyToken(s, now)
	if err != nil && token != (Token{}) {
		return errors.New("a refused token came out all the same")
	}
	return err
}

func verifyRoute(k Keys, s string, now time.Time) error {
	route, err := k.VerifyRoute(s, now)
	if err != nil && route != (Route{}) {
		return errors.New("a refused route came out all the same")
	}
	return err
}

func TestTokenComesBackAsItWasSigned(t *testing.T) {
	keys := RandomKeys()
	plain := testToken()
	noSubject := plain
	noSubject.Subject = ""
	odd := plain
	odd.Subject = "<\"\\\n\u2028" + strings.Repeat("é", 500)
	for _, want := range []Token{plain, noSubject, odd} {
		s, err := keys.SignToken(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := keys.VerifyToken(s, issued)
		if err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
	}
}

func TestRouteComesBackAsItWasSigned(t *testing.T) {
	keys := RandomKeys()
	s, err := keys.SignRoute(testRoute())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.VerifyRoute(s, issued); err != nil || got != testRoute() {
		t.Errorf("got %v, %v, want %v", got, err, testRoute())
	}
}

func TestFractionsOfASecondAreCut(t *testing.T) {
	keys := RandomKeys()
	want := testToken()
	fine := want
	fine.IssuedAt, fine.Expires = issued.Add(999*time.Millisecond), expires.Add(time.Nanosecond)
	s, err := keys.SignToken(fine)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := keys.VerifyToken(s, issued); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestTicketExpiresAtItsVerySecond(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		for now, want := range map[time.Time]error{
			issued.Add(-time.Hour):            nil, // the clock of another worker may lag
			expires.Add(-time.Nanosecond):     nil,
			expires:                           ErrExpired,
			expires.Add(24 * 365 * time.Hour): ErrExpired,
		} {
			if err := ticket.verify(keys, ticket.text, now); !errors.Is(err, want) {
				t.Errorf("%s at %s: got %v, want %v", name, now, err, want)
			}
		}
	}
}

func TestKeysRotate(t *testing.T) {
	old := mustKeys(t, "k1 "+secretA)
	both := mustKeys(t, "k2 "+secretB+"\nk1 "+secretA)
	renewed := mustKeys(t, "k2 "+secretB)
	for name, ticket := range tickets(t, old) {
		if err := ticket.verify(both, ticket.text, issued); err != nil {
			t.Errorf("%s of the old key, while both are there: %v", name, err)
		}
		if err := ticket.verify(renewed, ticket.text, issued); !errors.Is(err, ErrForged) {
			t.Errorf("%s of the old key, after it was removed: got %v, want ErrForged", name, err)
		}
	}
	for name, ticket := range tickets(t, both) {
		if err := ticket.verify(renewed, ticket.text, issued); err != nil {
			t.Errorf("%s signed while both are there was not signed by the first: %v", name, err)
		}
	}
}

func TestSameKeyNameWithOtherSecretIsForged(t *testing.T) {
	ours, theirs := mustKeys(t, "k1 "+secretA), mustKeys(t, "k1 "+secretB)
	for name, ticket := range tickets(t, theirs) {
		if err := ticket.verify(ours, ticket.text, issued); !errors.Is(err, ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", name, err)
		}
	}
}

func TestZeroKeysSignAndVerifyNothing(t *testing.T) {
	var none Keys
	if _, err := none.SignToken(testToken()); err == nil {
		t.Error("the zero Keys signed a token")
	}
	if _, err := none.SignRoute(testRoute()); err == nil {
		t.Error("the zero Keys signed a route")
	}
	for name, ticket := range tickets(t, RandomKeys()) {
		if err := ticket.verify(none, ticket.text, issued); !errors.Is(err, ErrForged) {
			t.Errorf("%s: got %v, want ErrForged", name, err)
		}
	}
}

func TestNeitherTicketPassesForTheOther(t *testing.T) {
	keys := RandomKeys()
	all := tickets(t, keys)
	if err := verifyRoute(keys, all["token"].text, issued); !errors.Is(err, ErrForged) {
		t.Errorf("token as route: got %v, want ErrForged", err)
	}
	if err := verifyToken(keys, all["route"].text, issued); !errors.Is(err, ErrForged) {
		t.Errorf("route as token: got %v, want ErrForged", err)
	}
}

func TestEverySingleBitChangeIsRefused(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		for i := range ticket.text {
			for bit := range 8 {
				b := []byte(ticket.text)
				b[i] ^= 1 << bit
				mustRefuse(t, keys, name, ticket, string(b))
			}
		}
	}
}

func TestEveryRespellingIsRefused(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		s := ticket.text
		parts := strings.Split(s, ".")
		for _, other := range []string{
			"", " ", ".", "..", "...", s + ".", "." + s, s + "." + parts[2], parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".",
			s + "=", s + "==", parts[0] + "=." + parts[1] + "." + parts[2], parts[0] + "." + parts[1] + "=." + parts[2],
			s + "\n", s + "\r\n", s + " ", s + "\x00", " " + s, "\t" + s, "\ufeff" + s, "Bearer " + s, `"` + s + `"`,
			strings.ToUpper(s), strings.ToLower(s), strings.ReplaceAll(s, ".", "\u3002"), strings.ReplaceAll(s, ".", "%2E"),
		} {
			mustRefuse(t, keys, name, ticket, other)
		}
		for i := range len(s) + 1 {
			for _, c := range []string{"\n", "\r", " ", "=", "."} {
				mustRefuse(t, keys, name, ticket, s[:i]+c+s[i:])
			}
			if i > 0 {
				mustRefuse(t, keys, name, ticket, s[:i-1]+s[i:])
			}
		}
		// In base64url the last character of a part carries 6, 4 or 2 bits that count; the others
		// that decode to the same bytes are respellings. Try every last character of every part.
		const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/"
		for i, part := range parts {
			for _, c := range alphabet {
				other := append([]string(nil), parts...)
				other[i] = part[:len(part)-1] + string(c)
				mustRefuse(t, keys, name, ticket, strings.Join(other, "."))
			}
		}
	}
}

// TestStandardAlphabetIsRefused needs a signature that holds - or _, which most have.
func TestStandardAlphabetIsRefused(t *testing.T) {
	keys := RandomKeys()
	standard := strings.NewReplacer("-", "+", "_", "/")
	for tried := 0; tried < 3; {
		for name, ticket := range tickets(t, keys) {
			if other := standard.Replace(ticket.text); other != ticket.text {
				tried++
				mustRefuse(t, keys, name, ticket, other)
			}
		}
		keys = RandomKeys()
	}
}

func TestOtherHeadersAreRefused(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	secret := []byte(secretA)
	pair, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, ticket := range tickets(t, keys) {
		typ := typs[kindToken]
		if name == "route" {
			typ = typs[kindRoute]
		}
		payload := strings.Split(ticket.text, ".")[1]
		right := `{"alg":"HS256","kid":"k1","typ":"` + typ + `"}`
		if forged(t, jwt.SigningMethodHS256, right, payload, secret) != ticket.text {
			t.Fatalf("%s: the test's own way of signing is not ours", name)
		}
		for _, f := range []struct {
			method jwt.SigningMethod
			header string
			key    any
		}{
			{jwt.SigningMethodNone, `{"alg":"none","kid":"k1","typ":"` + typ + `"}`, jwt.UnsafeAllowNoneSignatureType},
			{jwt.SigningMethodNone, right, jwt.UnsafeAllowNoneSignatureType},
			{jwt.SigningMethodHS384, `{"alg":"HS384","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS512, `{"alg":"HS512","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS384, right, secret},
			{jwt.SigningMethodRS256, `{"alg":"RS256","kid":"k1","typ":"` + typ + `"}`, pair},
			{jwt.SigningMethodRS256, right, pair},
			{jwt.SigningMethodHS256, `{"alg":"hs256","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"k2","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"k1"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","kid":"k1","typ":"JWT"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","crit":["exp"],"kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","b64":false,"kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"HS256","jwk":{"kty":"oct"},"kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, `{"alg":"none","alg":"HS256","kid":"k1","typ":"` + typ + `"}`, secret},
			{jwt.SigningMethodHS256, right + " ", secret},
			{jwt.SigningMethodHS256, `null`, secret},
			{jwt.SigningMethodHS256, ``, secret},
		} {
			mustRefuse(t, keys, name+" with header "+f.header, ticket, forged(t, f.method, f.header, payload, f.key))
		}
	}
}

// TestClaimsAreJudgedEvenIfSigned shows what a worker with a fault, or of another version, could
// sign: it is malformed, not trusted.
func TestClaimsAreJudgedEvenIfSigned(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	sign := func(kind kind, payload string) string {
		header := `{"alg":"HS256","kid":"k1","typ":"` + typs[kind] + `"}`
		return forged(t, jwt.SigningMethodHS256, header, base64.RawURLEncoding.EncodeToString([]byte(payload)), []byte(secretA))
	}
	const cid = `"cid":"018f6d9a-2b3c-7d4e-8f50-123456789abc"`
	good := sign(kindToken, `{`+cid+`,"srv":"i1-w3","epoch":7,"exp":4102444800,"later":["version"]}`)
	if err := verifyToken(keys, good, issued); err != nil {
		t.Errorf("a claim of a later version: %v", err)
	}
	for _, payload := range []string{
		``, `null`, `[]`, `"x"`, `{}`, `{"srv":"i1-w3","epoch":7,"exp":4102444800}`,
		`{` + cid + `,"epoch":7,"exp":4102444800}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":"4102444800"}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":4102444800.5}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":1e400}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":-1}`,
		`{` + cid + `,"srv":"i1-w3","epoch":-7,"exp":4102444800}`,
		`{` + cid + `,"srv":"I1-W3","epoch":7,"exp":4102444800}`,
		`{` + cid + `,"srv":["i1-w3"],"epoch":7,"exp":4102444800}`,
		`{` + cid + `,"srv":"i1-w3","epoch":7,"exp":4102444800,"sub":"` + strings.Repeat("s", maxSubject+1) + `"}`,
		`{"cid":"018f6d9a-2b3c-4d4e-8f50-123456789abc","srv":"i1-w3","epoch":7,"exp":4102444800}`,
		`{"cid":"018F6D9A-2B3C-7D4E-8F50-123456789ABC","srv":"i1-w3","epoch":7,"exp":4102444800}`,
	} {
		if err := verifyToken(keys, sign(kindToken, payload), issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("token with %s: got %v, want ErrMalformed", payload, err)
		}
	}
	for _, payload := range []string{``, `{}`, `{"srv":"i1-w3"}`, `{"srv":"i1","exp":4102444800}`, `{"exp":4102444800}`} {
		if err := verifyRoute(keys, sign(kindRoute, payload), issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("route with %s: got %v, want ErrMalformed", payload, err)
		}
	}
}

func TestOversizedTicketIsMalformed(t *testing.T) {
	keys := RandomKeys()
	for name, ticket := range tickets(t, keys) {
		if err := ticket.verify(keys, ticket.text+strings.Repeat("A", maxTicket), issued); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestSignRefusesWhatVerifyWould(t *testing.T) {
	keys := RandomKeys()
	for name, change := range map[string]func(*Token){
		"no client":         func(t *Token) { t.Client = ClientID{} },
		"no server":         func(t *Token) { t.Server = "" },
		"bad server":        func(t *Token) { t.Server = "i1" },
		"negative epoch":    func(t *Token) { t.Epoch = -1 },
		"no end":            func(t *Token) { t.Expires = time.Time{} },
		"ends as it begins": func(t *Token) { t.Expires = t.IssuedAt },
		"long subject":      func(t *Token) { t.Subject = strings.Repeat("s", maxSubject+1) },
		"subject not UTF-8": func(t *Token) { t.Subject = "\xff" },
		"over the limit":    func(t *Token) { t.Subject = strings.Repeat("\x01", maxSubject) },
	} {
		token := testToken()
		change(&token)
		if s, err := keys.SignToken(token); err == nil {
			t.Errorf("%s: signed as %s", name, s)
		}
	}
	for name, route := range map[string]Route{"no server": {Expires: expires}, "no end": {Server: "i1-w3"}} {
		if s, err := keys.SignRoute(route); err == nil {
			t.Errorf("route with %s: signed as %s", name, s)
		}
	}
}

// TestTicketsAreJWTs lets golang-jwt's own parser, which shares no parsing with ours, read them.
func TestTicketsAreJWTs(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	for name, ticket := range tickets(t, keys) {
		parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithStrictDecoding(),
			jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return issued }))
		parsed, err := parser.Parse(ticket.text, func(*jwt.Token) (any, error) { return []byte(secretA), nil })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if parsed.Header["kid"] != "k1" || parsed.Claims.(jwt.MapClaims)["srv"] != "i1-w3" {
			t.Errorf("%s: got header %v, claims %v", name, parsed.Header, parsed.Claims)
		}
	}
}

// TestTicketTextIsFixed pins the bytes: a worker of the next version has to verify the tickets
// of this one, and HAProxy's side is configured for them.
func TestTicketTextIsFixed(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	token := testToken()
	token.Client = ClientID{0x01, 0x8f, 0x6d, 0x9a, 0x2b, 0x3c, 0x7d, 0x4e, 0x8f, 0x50, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc}
	s, err := keys.SignToken(token)
	if err != nil {
		t.Fatal(err)
	}
	checkParts(t, s, `{"alg":"HS256","kid":"k1","typ":"wscluster-resume+jwt"}`,
		`{"cid":"018f6d9a-2b3c-7d4e-8f50-123456789abc","srv":"i1-w3","epoch":1773480413000,"sub":"alice@example.org","iat":1773480413,"exp":1773482213}`)
	if s, err = keys.SignRoute(testRoute()); err != nil {
		t.Fatal(err)
	}
	checkParts(t, s, `{"alg":"HS256","kid":"k1","typ":"wscluster-route+jwt"}`, `{"srv":"i1-w3","exp":1773482213}`)
}

func checkParts(t *testing.T, s, header, payload string) {
	t.Helper()
	mac := hmac.New(sha256.New, []byte(secretA))
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode([]byte(header)) + "." + encode([]byte(payload))
	mac.Write([]byte(signed))
	if want := signed + "." + encode(mac.Sum(nil)); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func forged(t *testing.T, method jwt.SigningMethod, header, payload string, key any) string {
	t.Helper()
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + payload
	signature, err := method.Sign(signed, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func mustRefuse(t *testing.T, keys Keys, name string, ticket ticket, other string) {
	t.Helper()
	if other == ticket.text {
		return
	}
	err := ticket.verify(keys, other, issued)
	if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrForged) {
		t.Errorf("%s: %q for %q: got %v, want ErrMalformed or ErrForged", name, other, ticket.text, err)
	}
}

func FuzzVerifyToken(f *testing.F) {
	keys := mustKeys(f, "k1 "+secretA)
	token := tickets(f, keys)["token"].text
	f.Add(token)
	f.Add(token[:len(token)-1])
	f.Add("..")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := keys.VerifyToken(s, issued)
		if err != nil {
			if got != (Token{}) {
				t.Fatalf("refused, and yet %v", got)
			}
			return
		}
		if again, err := keys.SignToken(got); err != nil || again != s {
			t.Fatalf("%q is a second spelling of %q (%v)", s, again, err)
		}
	})
}

func FuzzVerifyRoute(f *testing.F) {
	keys := mustKeys(f, "k1 "+secretA)
	f.Add(tickets(f, keys)["route"].text)
	f.Add(tickets(f, keys)["token"].text)
	f.Fuzz(func(t *testing.T, s string) {
		got, err := keys.VerifyRoute(s, issued)
		if err != nil {
			return
		}
		if again, err := keys.SignRoute(got); err != nil || again != s {
			t.Fatalf("%q is a second spelling of %q (%v)", s, again, err)
		}
	})
}

func TestVerifyTokenAllocationBudget(t *testing.T) {
	keys := RandomKeys()
	token := tickets(t, keys)["token"].text
	got := testing.AllocsPerRun(100, func() {
		if err := verifyToken(keys, token, issued); err != nil {
			t.Fatal(err)
		}
	})
	if got > 20 {
		t.Errorf("VerifyToken allocates %v times, over its budget of 20", got)
	}
}

func BenchmarkVerifyToken(b *testing.B) {
	keys := RandomKeys()
	token := tickets(b, keys)["token"].text
	b.ReportAllocs()
	for b.Loop() {
		if err := verifyToken(keys, token, issued); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkParserOfTheLibrary is the anchor for BenchmarkVerifyToken: golang-jwt's own parser
// with every check that it has, on the same token.
func BenchmarkParserOfTheLibrary(b *testing.B) {
	keys := mustKeys(b, "k1 "+secretA)
	token := tickets(b, keys)["token"].text
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"HS256"}), jwt.WithStrictDecoding(),
		jwt.WithExpirationRequired(), jwt.WithTimeFunc(func() time.Time { return issued }))
	b.ReportAllocs()
	for b.Loop() {
		_, err := parser.Parse(token, func(*jwt.Token) (any, error) { return []byte(secretA), nil })
		if err != nil {
			b.Fatal(err)
		}
	}
}
