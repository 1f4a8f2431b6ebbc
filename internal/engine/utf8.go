package engine

import "unicode/utf8"

// utf8Check tells whether a text that comes in pieces is UTF-8, at the first byte that cannot be
// part of it. The zero value is ready for a text, and so is one that is done.
type utf8Check struct {
	tail [utf8.UTFMax]byte // the beginning of a rune whose end has not come yet
	n    uint8
}

// add takes the next piece and returns false once the text can no longer be UTF-8.
func (u *utf8Check) add(b []byte) bool {
	for u.n > 0 && len(b) > 0 {
		u.tail[u.n] = b[0]
		u.n++
		b = b[1:]
		if t := u.tail[:u.n]; utf8.FullRune(t) {
			if r, size := utf8.DecodeRune(t); r == utf8.RuneError && size == 1 {
				return false
			}
			u.n = 0
		}
	}
	whole := b[:len(b)-openRune(b)]
	if u.n == 0 {
		u.n = uint8(copy(u.tail[:], b[len(whole):]))
	}
	return utf8.Valid(whole)
}

// done says whether the text ends on a whole rune.
func (u *utf8Check) done() bool { return u.n == 0 }

// openRune is the length of a rune at the end of b that is right so far and not complete.
func openRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if end := b[len(b)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

// cutUTF8 is the longest beginning of s that has at most limit bytes and ends on a whole rune.
func cutUTF8(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}
