package crowd

import (
	"bytes"
	"errors"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestAMessageHas256BytesAndIsFoundInAFrame(t *testing.T) {
	for _, tt := range []struct {
		to    int
		n, at int64
	}{{0, 1, 0}, {Everybody, 1 << 40, 1 << 62}, {999_999, 7, 123}} {
		m := Message(tt.to, tt.n, tt.at)
		if len(m) != MessageBytes {
			t.Errorf("it has %d bytes", len(m))
		}
		frame := wire.AppendEventFrame(nil, &wire.Event{Task: wire.NewTaskID(), Body: m})
		to, n, at, found, err := find(frame)
		if to != tt.to || n != tt.n || at != tt.at || !found || err != nil {
			t.Errorf("%+v is found as %d, %d, %d, %t, %v", tt, to, n, at, found, err)
		}
	}
}

func TestAMessageThatIsNotWholeIsAnError(t *testing.T) {
	m := Message(3, 4, 5)
	for name, frame := range map[string][]byte{
		"cut":               m[:MessageBytes-1],
		"a byte is another": bytes.Replace(m, []byte("xxxx"), []byte("xxyx"), 1),
		"its end is":        append(bytes.Clone(m[:MessageBytes-2]), "x}"...),
		"no number":         bytes.Replace(m, []byte(`"n":4`), []byte(`"n":x`), 1),
		"no pad":            bytes.Replace(m, []byte(`"pad"`), []byte(`"bad"`), 1),
	} {
		if _, _, _, found, err := find(frame); !found || !errors.Is(err, errBody) {
			t.Errorf("%s: %t, %v", name, found, err)
		}
	}
	if _, _, _, found, err := find([]byte(`{"type":"pong"}`)); found || err != nil {
		t.Errorf("another frame: %t, %v", found, err)
	}
}

// FuzzFind: whatever a server sends, a message is found whole or not at all.
func FuzzFind(f *testing.F) {
	f.Add(Message(1, 2, 3))
	f.Add(append([]byte(`42["m",`), Message(Everybody, 9, 9)...))
	f.Add([]byte(`{"to":{"to":`))
	f.Fuzz(func(t *testing.T, frame []byte) {
		to, n, at, found, err := find(frame)
		if found && err == nil && len(frame) == MessageBytes && !bytes.Equal(Message(to, n, at), frame) &&
			!bytes.Contains(frame, []byte(":+")) && !bytes.Contains(frame, []byte(":0")) && !bytes.Contains(frame, []byte(":-0")) {
			t.Errorf("%q was taken for %q", frame, Message(to, n, at))
		}
	})
}
