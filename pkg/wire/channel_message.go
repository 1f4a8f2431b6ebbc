package wire

import (
	"fmt"
	"strconv"
	"time"
)

// The AMQP headers of a post.
const (
	headerPublisher = "publisher"
	headerStream    = "stream"
	headerKey       = "key"
	headerTime      = "time"
)

// Headers returns what travels beside p's body: string and int64 values.
func (p *Post) Headers() map[string]any {
	h := map[string]any{headerTime: p.Time.UTC().Format(timeLayout)}
	if p.Key != "" {
		h[headerKey] = p.Key
	}
	if p.Seq != 0 {
		h[headerPublisher], h[headerStream], h[headerSeq] = p.Publisher, string(p.Stream), p.Seq
	}
	return h
}

// DecodePost reads a post as it crosses the broker: its routing key, type, headers and body. Body is
// kept, not copied. A publisher that is not ours may leave out every header; the time is then received.
func DecodePost(channel, typ string, headers map[string]any, body []byte, received time.Time) (*Post, error) {
	h := headerReader{headers: headers}
	p := &Post{
		Channel: Channel(channel), Name: typ, Body: body, Time: Time{received},
		Publisher: h.text(headerPublisher), Stream: RunID(h.text(headerStream)), Seq: h.integer(headerSeq), Key: h.text(headerKey),
	}
	at := h.text(headerTime)
	if h.err != nil {
		return nil, fmt.Errorf("post: %w", h.err)
	}
	if at != "" {
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return nil, fmt.Errorf("post: header time: %.40q is not a time as in RFC 3339", at)
		}
		p.Time = Time{t}
	}
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("post: %w", err)
	}
	return p, nil
}

// postFrameRoom is more than a message frame has beside its body and its key, in bytes.
const postFrameRoom = 512

// AppendPostFrame appends p as a subscriber sees it to dst: one frame for all of them. Nothing is checked: p
// must come from DecodePost or have passed Check.
func AppendPostFrame(dst []byte, p *Post) []byte {
	dst = append(dst, `{"type":"message","channel":"`...)
	dst = append(dst, p.Channel...)
	if p.Name != "" {
		dst = append(dst, `","name":"`...)
		dst = append(dst, p.Name...)
	}
	if p.Seq != 0 {
		dst = append(dst, `","publisher":"`...)
		dst = append(dst, p.Publisher...)
		dst = append(dst, `","stream":"`...)
		dst = append(dst, p.Stream...)
		dst = append(dst, `","seq":`...)
		dst = strconv.AppendInt(dst, p.Seq, 10)
	} else {
		dst = append(dst, '"')
	}
	if p.Key != "" {
		key, err := marshal(p.Key)
		if err != nil {
			panic(fmt.Sprintf("wire: encode a key: %v", err)) // a string cannot fail
		}
		dst = append(dst, `,"key":`...)
		dst = append(dst, key...)
	}
	dst = append(dst, `,"time":"`...)
	dst = p.Time.UTC().AppendFormat(dst, timeLayout)
	dst = append(dst, `","body":`...)
	dst = append(dst, p.Body...)
	return append(dst, '}')
}

func (*Post) serverMessage() {}

func (p *Post) check() error { return p.Check() }
