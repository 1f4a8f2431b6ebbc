package socketmeta

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const (
	secretA = "0123456789abcdef0123456789abcdef"
	secretB = "fedcba9876543210!#$%&'()*+,-./:;<=>?@[]^_`{|}~"
)

func TestParseKeys(t *testing.T) {
	keys := mustKeys(t, "# signing key first\r\n\n  k-2\t"+secretB+" \r\nk_1 "+secretA)
	if got, want := keys.String(), "keys[k-2 k_1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := string(keys.list[0].secret()); got != secretB {
		t.Errorf("the secret became %q", got)
	}
}

func TestParseKeysNamesTheLineAndNeverTheSecret(t *testing.T) {
	long := strings.Repeat("s", maxKeySecret)
	tests := map[string]struct{ text, want string }{
		"empty file":          {"", "no key"},
		"only comments":       {"# one\n\n#two " + secretA, "no key"},
		"secret alone":        {"\n" + secretA, "line 2 has 1 words"},
		"space in the secret": {"k1 " + secretA + " " + secretB, "line 1 has 3 words"},
		"short secret":        {"k1 " + secretA[1:], "line 1: the secret has 31 bytes"},
		"long secret":         {"k1 " + long + "s", "line 1: the secret has 513 bytes"},
		"secret not ASCII":    {"k1 é" + secretA, "line 1: the secret must be printable ASCII"},
		"NUL in the secret":   {"k1 \x00" + secretA, "line 1: the secret must be printable ASCII"},
		"DEL in the secret":   {"k1 \x7f" + secretA, "line 1: the secret must be printable ASCII"},
		"not UTF-8":           {"k1 \xff" + secretA, "line 1: the secret must be printable ASCII"},
		"name and secret swapped": {
			secretA + secretA + " " + secretB, "line 1: the key's name",
		},
		"quote in the name": {`k"1 ` + secretA, "line 1: the key's name"},
		"long name":         {strings.Repeat("k", maxKeyID+1) + " " + secretA, "line 1: the key's name"},
		"same name twice":   {"k1 " + secretA + "\nk2 " + secretA + "\nk1 " + secretB, "line 3: two keys"},
		"nine keys":         {manyKeys(maxKeys + 1), "line 9: more than 8 keys"},
	}
	for name, test := range tests {
		_, err := ParseKeys([]byte(test.text))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
			continue
		}
		for _, secret := range []string{secretA, secretB, long} {
			if strings.Contains(err.Error(), secret[:16]) {
				t.Errorf("%s: the error holds a secret: %v", name, err)
			}
		}
	}
	for _, text := range []string{manyKeys(maxKeys), strings.Repeat("k", maxKeyID) + " " + long} {
		if _, err := ParseKeys([]byte(text)); err != nil {
			t.Errorf("at the limits: %v", err)
		}
	}
}

// TestKeysDoNotPrintTheirSecrets holds for Keys by itself and deep in somebody's struct, where
// fmt cannot call methods.
func TestKeysDoNotPrintTheirSecrets(t *testing.T) {
	keys := mustKeys(t, "k1 "+secretA)
	config := struct {
		Keys   Keys
		hidden Keys
		ptr    *Keys
	}{keys, keys, &keys}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		for _, v := range []any{keys, &keys, []Keys{keys}, config, &config} {
			got := fmt.Sprintf(verb, v)
			for _, leak := range []string{secretA, fmt.Sprintf("%x", secretA), "48 49 50", "0x30, 0x31", "48, 49"} {
				if strings.Contains(got, leak) {
					t.Errorf("%s of %T prints the secret: %s", verb, v, got)
				}
			}
		}
	}
}

func TestRandomKeysDiffer(t *testing.T) {
	a, b := RandomKeys(), RandomKeys()
	if a.IsZero() || slices.Equal(a.list[0].secret(), b.list[0].secret()) {
		t.Error("two calls gave the same key")
	}
	if _, err := ParseKeys([]byte("k1 " + string(a.list[0].secret()))); err != nil {
		t.Errorf("a random secret does not pass the rules for secrets: %v", err)
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte("k1 " + secretA + "\n# old\nk0 " + secretB))
	f.Add([]byte("k1\t" + secretA + "\r\n\r\n"))
	f.Add([]byte(" # \x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParseKeys(text)
		if err != nil {
			return
		}
		if n := len(keys.list); n < 1 || n > maxKeys {
			t.Fatalf("%d keys", n)
		}
		for _, k := range keys.list {
			if !isKeyID(k.id) || len(k.secret()) < minKeySecret || len(k.secret()) > maxKeySecret {
				t.Fatalf("key %q with %d bytes", k.id, len(k.secret()))
			}
		}
	})
}

func mustKeys(t testing.TB, text string) Keys {
	t.Helper()
	keys, err := ParseKeys([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d %s\n", i, secretA)
	}
	return b.String()
}
