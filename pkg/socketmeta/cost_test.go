package socketmeta

import (
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

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
