package socketmeta

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestNewClientIDsAreParsedAgainAndDiffer(t *testing.T) {
	seen := map[ClientID]bool{}
	for range 1000 {
		c := NewClientID()
		got, err := ParseClientID(c.String())
		if err != nil || got != c {
			t.Fatalf("%s: got %v, %v", c, got, err)
		}
		if c.IsZero() || seen[c] {
			t.Fatalf("%s is zero or came twice", c)
		}
		seen[c] = true
	}
}

func TestClientIDHasOneSpelling(t *testing.T) {
	const good = "018f6d9a-2b3c-7d4e-8f50-123456789abc"
	if _, err := ParseClientID(good); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", strings.ToUpper(good), "{" + good + "}", "urn:uuid:" + good, strings.ReplaceAll(good, "-", ""),
		good + " ", good[:35], good + "0", strings.Replace(good, "-7", "-4", 1), strings.Replace(good, "-8f", "-0f", 1),
		"00000000-0000-0000-0000-000000000000", "018f6d9a_2b3c_7d4e_8f50_123456789abc", strings.Replace(good, "0", "g", 1),
	} {
		if c, err := ParseClientID(s); !errors.Is(err, ErrClientID) || !c.IsZero() {
			t.Errorf("%q: got %v, %v, want ErrClientID", s, c, err)
		}
	}
}

func TestServerID(t *testing.T) {
	long := strings.Repeat("a", 31)
	for _, s := range []string{"i1-w3", "0-0", "eu1a-7", long + "-" + long + "b"} {
		id, err := ParseServerID(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		}
		if got := id.Instance() + "-" + id.Worker(); got != s {
			t.Errorf("%s falls into %s", s, got)
		}
	}
	for _, s := range []string{
		"", "-", "i1", "i1-", "-w3", "i1-w3-x", "I1-w3", "i1-w3 ", "i1_w3", "i1-w\u0661", "i1-w3\n", "_parked", "*-#", long + "-" + long + "ab",
	} {
		if id, err := ParseServerID(s); !errors.Is(err, ErrServerID) || id != "" {
			t.Errorf("%q: got %q, %v, want ErrServerID", s, id, err)
		}
	}
}

func TestMetaCrossesJSON(t *testing.T) {
	want := Meta{Client: NewClientID(), Server: "i1-w3", Epoch: 1773480413000}
	p, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if text := `{"client_id":"` + want.Client.String() + `","server_id":"i1-w3","epoch":1773480413000}`; string(p) != text {
		t.Errorf("got %s, want %s", p, text)
	}
	var got Meta
	if err := json.Unmarshal(p, &got); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, bad := range []string{`{"client_id":"x"}`, `{"client_id":7}`, `{"server_id":"x"}`, `{"server_id":7}`, `{"epoch":"1"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

func TestEpochNeverStandsStillOrGoesBack(t *testing.T) {
	for _, test := range []struct {
		e    Epoch
		now  int64
		want Epoch
	}{{0, 1000, 1000}, {1000, 1000, 1001}, {5000, 1000, 5001}, {999, 1000, 1000}, {0, 0, 1}} {
		if got := test.e.Next(test.now); got != test.want {
			t.Errorf("epoch %d at %d: got %d, want %d", test.e, test.now, got, test.want)
		}
	}
}

func FuzzParseClientID(f *testing.F) {
	f.Add("018f6d9a-2b3c-7d4e-8f50-123456789abc")
	f.Add("urn:uuid:018f6d9a-2b3c-7d4e-8f50-123456789abc")
	f.Fuzz(func(t *testing.T, s string) {
		if c, err := ParseClientID(s); err == nil && c.String() != s {
			t.Fatalf("%q is a second spelling of %s", s, c)
		} else if err != nil && !errors.Is(err, ErrClientID) {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

func FuzzParseServerID(f *testing.F) {
	f.Add("i1-w3")
	f.Add("_parked")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseServerID(s)
		if err != nil {
			if !errors.Is(err, ErrServerID) {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if len(id) > maxServerID || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789") != "" && strings.Count(s, "-") != 1 {
			t.Fatalf("%q was taken", s)
		}
		if id.Instance() == "" || id.Worker() == "" || id.Instance()+"-"+id.Worker() != s {
			t.Fatalf("%q falls into %q and %q", s, id.Instance(), id.Worker())
		}
	})
}
