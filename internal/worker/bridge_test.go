package worker_test

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing/synctest"

	"github.com/wscluster/wscluster/pkg/wire"
)

// plain is an HTTP client whose connections go to w, one for each request.
func (w *lodger) plain() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return w.dial() }}}
}

// ask does one request; header is names and values in turn.
func ask(c *http.Client, method, path, body string, header ...string) (*http.Response, error) {
	r, err := http.NewRequest(method, "http://example.test"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return c.Do(r)
}

// do is one request to w, and its whole answer.
func (b *bubble) do(w *lodger, method, path, body string, header ...string) (status int, h http.Header, answer string) {
	b.Helper()
	r, err := ask(w.plain(), method, path, body, header...)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Body.Close()
	p, err := io.ReadAll(r.Body)
	if err != nil {
		b.Fatal(err)
	}
	return r.StatusCode, r.Header, string(p)
}

// post sends one message of a client to w, and returns the status and the code of a refusal.
func (b *bubble) post(w *lodger, token string, m wire.ClientMessage) (status int, code wire.Code) {
	b.Helper()
	status, _, answer := b.do(w, "POST", "/v1/messages", string(wire.EncodeClient(m)), "X-Socket-Meta", token)
	synctest.Wait()
	return status, problemOf(answer)
}

func problemOf(answer string) wire.Code {
	var p struct{ Code wire.Code }
	_ = json.Unmarshal([]byte(answer), &p) // "": no problem
	return p.Code
}

// stream is an event stream whose events are read as they come. It has bareSocket's methods to read.
func (b *bubble) stream(w *lodger, hello *wire.Hello, header ...string) *bareSocket {
	b.Helper()
	method, body := "GET", ""
	if hello != nil {
		method, body = "POST", string(wire.EncodeClient(hello))
	}
	r, err := ask(w.plain(), method, "/v1/events", body, header...)
	if err != nil {
		b.Fatal(err)
	}
	s := &bareSocket{socket: &socket{t: b.T, status: r.StatusCode, close: r.Body.Close}, heard: make(chan frame, 1000)}
	b.ends = append(b.ends, func() { r.Body.Close() })
	if r.StatusCode != http.StatusOK {
		r.Body.Close()
		return s
	}
	go func() {
		defer close(s.heard)
		_ = readEvents(r.Body, func(data []byte) { s.heard <- frame{text, data} }, func() {})
	}()
	synctest.Wait()
	return s
}

// readEvents reads a stream to its end, which is nil, and gives the data of each event, and comments, to
// its functions.
func readEvents(r io.Reader, event func([]byte), comment func()) error {
	lines := bufio.NewReaderSize(r, wire.MaxServerFrame+100)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case err != nil:
			return err
		}
		blank, err := lines.ReadByte()
		if err != nil || blank != '\n' {
			return fmt.Errorf("behind %.100q: %q, %v; want an empty line", line, blank, err)
		}
		switch data, ok := strings.CutPrefix(string(line[:len(line)-1]), "data: "); {
		case ok:
			event([]byte(data))
		case string(line) == ":\n":
			comment()
		default:
			return fmt.Errorf("the stream has a line %.100q", line)
		}
	}
}

// bridge is a way for wsclient to speak by event stream and POST: what it takes for a WebSocket ends
// here, in the test. The stream goes to one worker, each POST to whichever post names.
func (b *bubble) bridge(w *lodger, post func() *lodger) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		defer far.Close()
		if err := carry(bufio.NewReader(far), far, w, post); err != nil {
			b.Logf("a bridge to %s ended: %v", w.id, err)
		}
	}()
	return near, nil
}

func carry(in *bufio.Reader, out io.Writer, w *lodger, post func() *lodger) error {
	r, err := http.ReadRequest(in)
	if err != nil {
		return err
	}
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	if _, err := fmt.Fprintf(out, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(accept[:]), wire.Subprotocol); err != nil {
		return err
	}
	_, hello, err := readMasked(in)
	if err != nil {
		return err
	}
	stream, err := ask(w.plain(), "POST", "/v1/events", string(hello))
	if err != nil {
		return err
	}
	defer stream.Body.Close()
	if stream.StatusCode != http.StatusOK {
		return errors.New(stream.Status)
	}
	var mu sync.Mutex
	token, code, quiet := "", 1006, false
	write := func(op byte, p []byte) {
		mu.Lock()
		defer mu.Unlock()
		if !quiet { // the client leaves; the end comes by its side
			_, _ = out.Write(append(serverHeader(op, len(p)), p...))
		}
	}
	var reading sync.WaitGroup
	defer reading.Wait()
	reading.Go(func() {
		err := readEvents(stream.Body, func(data []byte) {
			switch m, _ := wire.DecodeServer(data); m := m.(type) {
			case *wire.SocketMeta:
				mu.Lock()
				token = m.Token
				mu.Unlock()
			case *wire.Bye:
				code = m.Code
			}
			write(text, data)
		}, func() { write(ping, nil) })
		if err == nil && code != 1006 {
			write(closing, binary.BigEndian.AppendUint16(nil, uint16(code)))
		}
		if c, ok := out.(io.Closer); ok {
			c.Close()
		}
	})
	defer func() {
		mu.Lock()
		quiet = true
		mu.Unlock()
		stream.Body.Close()
	}()
	for {
		op, p, err := readMasked(in)
		if err != nil || op == closing {
			return nil
		}
		if op != text {
			continue
		}
		mu.Lock()
		shown := token
		mu.Unlock()
		answer, err := ask(post().plain(), "POST", "/v1/messages", string(p), "X-Socket-Meta", shown)
		if err != nil {
			return err
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusAccepted {
			return errors.New(answer.Status)
		}
	}
}

// readMasked reads one frame of a client.
func readMasked(r *bufio.Reader) (op byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1] & 0x7f)
	more := make([]byte, map[uint64]int{126: 2, 127: 8}[n])
	if _, err := io.ReadFull(r, more); err != nil {
		return 0, nil, err
	}
	switch len(more) {
	case 2:
		n = uint64(binary.BigEndian.Uint16(more))
	case 8:
		n = binary.BigEndian.Uint64(more)
	}
	payload = make([]byte, 4+n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload[4:] {
		payload[4+i] ^= payload[i%4]
	}
	return head[0] & 0x0f, payload[4:], nil
}

func serverHeader(op byte, n int) []byte {
	switch {
	case n < 126:
		return []byte{0x80 | op, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{0x80 | op, 126}, uint16(n))
	}
	return binary.BigEndian.AppendUint64([]byte{0x80 | op, 127}, uint64(n))
}
