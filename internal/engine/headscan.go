package engine

import (
	"bytes"
	"net/http"
	"net/textproto"
	"strings"
)

// This file reads the header of a request on memory, so that a WebSocket upgrade needs no net/http. It is
// strict, and knows no request but the plain form of an upgrade: what it does not take is net/http's, which
// then accepts or refuses it by rules of its own. So it may say no to anything, but must read what it
// takes exactly as net/http does.

// headerEnd is the length of the header that b begins with, its empty line included, or 0 if it has not
// ended yet. from is how much of b was looked at before.
func headerEnd(b []byte, from int) int {
	for i := max(0, from-3); ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		switch rest := b[i:]; {
		case len(rest) > 0 && rest[0] == '\n':
			return i + 1
		case len(rest) > 1 && rest[0] == '\r' && rest[1] == '\n':
			return i + 2
		}
	}
}

// field is one line of a header.
type field struct{ name, value []byte }

// readUpgrade reads head, a whole header as headerEnd finds it. It returns false unless it is that of an upgrade to
// WebSocket in its plain form, well or badly: GET, HTTP/1.1, an absolute path, one Host, no body
// and nothing that asks for more than an answer. The request has what checkLimits and checkUpgrade look
// at and nothing of head's memory. scratch is used for the fields.
func readUpgrade(head []byte, scratch *[]field) (r http.Request, ok bool) {
	line, rest, ok := cutLine(head)
	target, get := bytes.CutPrefix(line, []byte("GET "))
	target, one := bytes.CutSuffix(target, []byte(" HTTP/1.1"))
	if !ok || !get || !one || !isPlainTarget(target) {
		return r, false
	}
	fields, ok := readFields(rest, (*scratch)[:0])
	*scratch = fields
	if !ok {
		return r, false
	}
	r.Header = make(http.Header, len(fields))
	texts, values := stringsOf(fields), make([]string, len(fields)) // one piece of memory for all
	for i, f := range fields {
		name := fieldName(f.name)
		switch name {
		case "Host":
			if r.Host != "" || !isPlainHost(f.value) {
				return r, false
			}
			r.Host, texts = string(f.value), texts[len(f.value):]
			continue
		case "Content-Length", "Transfer-Encoding", "Trailer", "Expect":
			return r, false
		}
		values[i], texts = texts[:len(f.value)], texts[len(f.value):]
		if was := r.Header[name]; was != nil {
			r.Header[name] = append(was, values[i])
		} else {
			r.Header[name] = values[i : i+1 : i+1]
		}
	}
	switch {
	case r.Host == "" || !isUpgrade(&r):
		return r, false
	case hasToken(r.Header["Connection"], "close"): // the answer of a refusal would have to be the last one
		return r, false
	case r.Header["Pragma"] != nil && r.Header["Cache-Control"] == nil: // to which net/http adds the other
		return r, false
	}
	r.Method, r.RequestURI, r.ProtoMajor, r.ProtoMinor = http.MethodGet, string(target), 1, 1
	return r, true
}

// stringsOf is all values, one behind the other.
func stringsOf(fields []field) string {
	size := 0
	for _, f := range fields {
		size += len(f.value)
	}
	var all strings.Builder
	all.Grow(size)
	for _, f := range fields {
		all.Write(f.value)
	}
	return all.String()
}

// readFields appends the lines of a header, of which b has nothing but them and the empty line.
func readFields(b []byte, fields []field) ([]field, bool) {
	for {
		line, rest, ok := cutLine(b)
		if !ok {
			return fields, false
		}
		if len(line) == 0 {
			return fields, len(rest) == 0
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		value = bytes.Trim(value, " \t")
		if !ok || !isName(name) || !isValue(value) {
			return fields, false
		}
		fields = append(fields, field{name, value})
		b = rest
	}
}

// cutLine cuts b behind its first line, which must end on CR and LF.
func cutLine(b []byte) (line, rest []byte, ok bool) {
	n := bytes.IndexByte(b, '\n')
	if n < 1 || b[n-1] != '\r' {
		return nil, nil, false
	}
	return b[:n-1], b[n+1:], true
}

// Classes of bytes.
const (
	inName  = 1 << iota // a token of RFC 9110
	inValue             // visible, space, tab and above ASCII
	inPath              // pchar of RFC 3986 and the slash, but no percent sign
	inHost              // of a name or an address with a port
	visible             // in ASCII
)

var classes = func() (of [256]byte) {
	add := func(class byte, chars string) {
		for i := range len(chars) {
			of[chars[i]] |= class
		}
	}
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	add(inName, letters+"!#$%&'*+-.^_`|~")
	add(inPath, letters+"-._~!$&'()*+,;=:@/")
	add(inHost, letters+"-._:[]")
	for c := range 256 {
		if c >= ' ' && c != 0x7f || c == '\t' {
			of[c] |= inValue
		}
		if c > ' ' && c < 0x7f {
			of[c] |= visible
		}
	}
	return of
}()

// all says whether every byte of b is of the class.
func all(class byte, b []byte) bool {
	for _, c := range b {
		if classes[c]&class == 0 {
			return false
		}
	}
	return true
}

func isName(b []byte) bool      { return len(b) > 0 && all(inName, b) }
func isValue(b []byte) bool     { return all(inValue, b) }
func isPlainHost(b []byte) bool { return len(b) > 0 && all(inHost, b) }

// isPlainTarget says whether a request target is an absolute path, and a query perhaps, which a URL's
// parser would leave as they are.
func isPlainTarget(b []byte) bool {
	path, query, _ := bytes.Cut(b, []byte("?"))
	return len(path) > 0 && path[0] == '/' && !bytes.HasPrefix(path, []byte("//")) && all(inPath, path) && all(visible, query)
}

// fieldNames are the canonical names of the fields that a handshake has in most cases, by their usual spellings:
// they need no memory.
var fieldNames = func() map[string]string {
	names := make(map[string]string)
	for _, name := range []string{
		"Host", "Upgrade", "Connection", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol",
		"Sec-WebSocket-Extensions", "Origin", "User-Agent", "Cookie", "Pragma", "Cache-Control", "Accept-Encoding",
		"Accept-Language", "X-Forwarded-For", "X-Forwarded-Proto", "X-Socket-Meta", "Content-Length", "Transfer-Encoding",
		"Trailer", "Expect",
	} {
		canonical := textproto.CanonicalMIMEHeaderKey(name)
		names[name], names[canonical], names[string(bytes.ToLower([]byte(name)))] = canonical, canonical, canonical
	}
	return names
}()

func fieldName(b []byte) string {
	if name, ok := fieldNames[string(b)]; ok {
		return name
	}
	return textproto.CanonicalMIMEHeaderKey(string(b))
}
