package wsclient

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/wire"
)

// FuzzServersBytes reads whatever a server may send: it ends, with messages of no more than the
// limit and control frames of no more than 125 bytes.
func FuzzServersBytes(f *testing.F) {
	for _, frame := range []ws.Frame{
		ws.NewTextFrame([]byte(`{"type":"pong"}`)),
		ws.NewFrame(ws.OpText, false, []byte(`{"type":`)),
		ws.NewFrame(ws.OpContinuation, true, []byte(`"pong"}`)),
		ws.NewPingFrame([]byte("you?")),
		ws.NewCloseFrame(ws.NewCloseFrameBody(1012, "drain")),
		ws.NewCloseFrame(nil),
		ws.NewBinaryFrame([]byte{0}),
	} {
		b, err := ws.CompileFrame(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(append(b, b...))
	}
	f.Add([]byte{0x81, 127, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		s := newSocket(recorded{bytes.NewReader(stream)}, nil)
		for {
			p, err := s.next(func(_ ws.Header, p []byte) {
				if len(p) > ws.MaxControlFramePayloadSize {
					t.Errorf("a control frame of %d bytes", len(p))
				}
			})
			if err != nil {
				return
			}
			if len(p) > wire.MaxServerFrame {
				t.Errorf("a message of %d bytes", len(p))
			}
		}
	})
}

// recorded is a connection that was recorded: it can only be read.
type recorded struct{ io.Reader }

func (recorded) Write(p []byte) (int, error)      { return len(p), nil }
func (recorded) Close() error                     { return nil }
func (recorded) LocalAddr() net.Addr              { return nil }
func (recorded) RemoteAddr() net.Addr             { return nil }
func (recorded) SetDeadline(time.Time) error      { return nil }
func (recorded) SetReadDeadline(time.Time) error  { return nil }
func (recorded) SetWriteDeadline(time.Time) error { return nil }
