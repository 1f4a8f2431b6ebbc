package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func TestDecodeControlRefuses(t *testing.T) {
	const (
		client = `"` + goldenClient + `"`
		claim  = `{"client_id":` + client + `,"epoch":1}`
		from   = `"from":"i1-w3"`
	)
	for _, test := range []struct{ name, typ, body, want string }{
		{"nothing", "probe", ``, "not JSON"},
		{"an array", "probe", `[]`, "must be an object"},
		{"null", "probe", `null`, "from: not a server ID"},
		{"two messages", "probe", `{` + from + `}{` + from + `}`, "not JSON"},
		{"from is a number", "probe", `{"from":7}`, "from must be a string"},
		{"from the parked server", "probe", `{"from":"_parked"}`, "not a server ID"},
		{"owner is the parked server", "owner", `{"from":"_parked","mailbox":"_parked"}`, "from: not a server ID"},
		{"mailbox is a number", "owner", `{` + from + `,"mailbox":7}`, "mailbox must be a string"},

		{"nobody moved", "moved", `{` + from + `}`, "names 0 clients"},
		{"too many moved", "moved", `{` + from + `,"clients":[` + many(claim, MaxClaims+1) + `]}`, "names 1001 clients and may name 1 to 1000"},
		{"moved to nowhere", "moved", `{"clients":[` + claim + `]}`, "from: not a server ID"},
		{"moved who", "moved", `{` + from + `,"clients":[` + claim + `,{"epoch":1}]}`, "clients[1]"},
		{"moved null", "moved", `{` + from + `,"clients":[null]}`, "clients[0]"},
		{"a client that is none", "moved", `{` + from + `,"clients":[{"client_id":"c1","epoch":1}]}`, "not a client ID"},
		{"a client that is a number", "moved", `{` + from + `,"clients":[{"client_id":1,"epoch":1}]}`, "clients.client_id must be a string"},
		{"an epoch that is missing", "moved", `{` + from + `,"clients":[{"client_id":` + client + `}]}`, "clients[0] has no client_id or its epoch"},
		{"an epoch over 53 bits", "moved", `{` + from + `,"clients":[{"client_id":` + client + `,"epoch":9007199254740992}]}`, "out of range"},
		{"an epoch that is a word", "moved", `{` + from + `,"clients":[{"client_id":` + client + `,"epoch":"1"}]}`, "clients.epoch must be an integer"},

		{"nobody sought", "seek", `{` + from + `,"clients":[]}`, "names 0 clients"},
		{"too many sought", "seek", `{` + from + `,"clients":[` + many(client, MaxClaims+1) + `]}`, "names 1001 clients"},
		{"sought null", "seek", `{` + from + `,"clients":[null]}`, "clients[0] is empty"},
		{"sought by claims", "seek", `{` + from + `,"clients":[` + claim + `]}`, "clients must be a string"},

		{"hand what back", "handback", `{}`, `mailbox "": not a server ID`},
		{"hand back a path", "handback", `{"mailbox":"_../x"}`, "not a server ID"},
		{"hand back an underscore", "handback", `{"mailbox":"_"}`, "not a server ID"},
		{"hand back a long one", "handback", `{"mailbox":"_` + strings.Repeat("a", 200) + `"}`, "not a server ID"},
		{"offer of nobody", "offer", `{"mailbox":"i1-w3"}`, "from"},
		{"offer of nothing", "offer", `{` + from + `}`, "mailbox"},
		{"owner who", "owner", `{"mailbox":"i1-w3"}`, "from"},
		{"owner of what", "owner", `{` + from + `}`, "mailbox"},

		{"kinds of nobody", "kinds", `{"slots":1}`, "runner: not a valid name"},
		{"kinds of a name that is none", "kinds", `{"runner":"R 1"}`, "runner: not a valid name"},
		{"slots below none", "kinds", `{"runner":"r1","slots":-1}`, "slots -1 or running 0 is out of range"},
		{"a kind that is null", "kinds", `{"runner":"r1","kinds":[null]}`, "kinds[0].kind: not a valid name"},
		{"a kind with a dot", "kinds", `{"runner":"r1","kinds":[{"kind":"a.high"}]}`, "kinds[0].kind: not a valid name"},
		{"a schema that is true", "kinds", `{"runner":"r1","kinds":[{"kind":"a"},{"kind":"b","schema":true}]}`, "kinds[1].schema must be an object"},
		{"a schema over the limit", "kinds", `{"runner":"r1","kinds":[{"kind":"a","schema":` + pad(`{"a":1`, MaxSchema+1) + `}]}`, "has 65537 bytes and may have 65536"},
		{"kinds over the limit", "kinds", pad(`{"runner":"r1"`, MaxControl+1), "has 262145 bytes and may have 262144"},
		{"a timeout below none", "kinds", `{"runner":"r1","kinds":[{"kind":"a","timeout_ms":-1}]}`, "kinds[0].timeout_ms: -1 is out of range"},
		{"nobody asks", "ask_kinds", `{}`, "from: not a server ID"},
	} {
		m, err := DecodeControl(test.typ, []byte(test.body))
		if err == nil || m != nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.typ) {
			t.Errorf("%s: got %v, %v, want %q", test.name, m, err, test.want)
			continue
		}
		if errors.Is(err, ErrUnknownType) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "Go ") {
			t.Errorf("%s: it says %v", test.name, err)
		}
		refusedBySchema(t, test.name, "control", test.typ, []byte(test.body))
	}
}

func TestControlMessageOfANewerWorkerIsToldApart(t *testing.T) {
	for _, typ := range []string{"", "Moved", "moved.ok", "hello"} {
		if m, err := DecodeControl(typ, []byte(`{}`)); m != nil || !errors.Is(err, ErrUnknownType) {
			t.Errorf("%q: got %v, %v, want ErrUnknownType", typ, m, err)
		}
	}
	m, err := DecodeControl("probe", []byte(`{"from":"i2-w1","later":{"version":2}}`))
	if diff := cmp.Diff(goldenControl["control_probe"], m); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestControlMessageNamesSoManyClients(t *testing.T) {
	moved, seek := &Moved{From: "i1-w3"}, &Seek{From: "i1-w3"}
	for range MaxClaims {
		c := socketmeta.NewClientID()
		moved.Clients = append(moved.Clients, Claim{c, MaxNumber})
		seek.Clients = append(seek.Clients, c)
	}
	for _, want := range []ControlMessage{moved, seek} {
		p := EncodeControl(want)
		got, err := DecodeControl(want.ControlType(), p)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", want.ControlType(), err, diff)
		}
		if len(p) > MaxTask {
			t.Errorf("%s has %d bytes, more than any other message but an event", want.ControlType(), len(p))
		}
	}
}

func TestReservedMailboxesAreNamed(t *testing.T) {
	for _, m := range []ControlMessage{&Handback{"_parked"}, &Offer{"i1-w3", "_parked"}, &Owner{"i1-w3", "_parked"}} {
		got, err := DecodeControl(m.ControlType(), EncodeControl(m))
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", m.ControlType(), err, diff)
		}
	}
}

func FuzzDecodeControl(f *testing.F) {
	for _, m := range goldenControl {
		f.Add(m.ControlType(), EncodeControl(m))
	}
	f.Add("owner", []byte(`{"FROM":"i1-w3","mailbox":"_parked"}`))
	f.Fuzz(func(t *testing.T, typ string, p []byte) {
		m, err := DecodeControl(typ, p)
		if (m == nil) == (err == nil) {
			t.Fatalf("got %v and %v", m, err)
		}
		if err != nil {
			return
		}
		if m.ControlType() != typ {
			t.Fatalf("a %s came out as a %s", typ, m.ControlType())
		}
		again, err := DecodeControl(typ, EncodeControl(m))
		if err != nil {
			t.Fatalf("%#v was taken, and refused when encoded again: %v", m, err)
		}
		if k, ok := m.(*Kinds); ok { // white space is not kept
			for i := range k.Kinds {
				k.Kinds[i].Schema = compacted(t, k.Kinds[i].Schema)
			}
		}
		if diff := cmp.Diff(m, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("encoding changed it (-want +got):\n%s", diff)
		}
	})
}

func compacted(t *testing.T, p json.RawMessage) json.RawMessage {
	var b bytes.Buffer
	if p != nil {
		if err := json.Compact(&b, p); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestForwardMayAskForTheReplyItself(t *testing.T) {
	for _, m := range []ControlMessage{
		&Forward{From: "i2-w1", Ask: goldenAsk, Client: goldenMeta.Client, Epoch: goldenMeta.Epoch, Frame: json.RawMessage(`{"type":"cancel","task_id":"build-7f3a"}`), Reply: true},
		&Forwarded{Ask: goldenAsk, Reply: json.RawMessage(`{"type":"canceling","task_id":"build-7f3a"}`)},
	} {
		got, err := DecodeControl(m.ControlType(), EncodeControl(m))
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", m.ControlType(), err, diff)
		}
	}
	long := &Forwarded{Ask: goldenAsk, Reply: json.RawMessage(`"` + strings.Repeat("x", MaxClientFrame) + `"`)}
	if _, err := DecodeControl("forwarded", EncodeControl(long)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a reply over the limit: %v, want ErrTooLarge", err)
	}
}
