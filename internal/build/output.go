package build

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	maxSeen        = 1 << 10 // bytes of a line that are looked at for progress and captured values
	maxCommandLine = 4 << 10 // bytes of a step's program and arguments that its log shows
)

// output is what one step says, on its way to the log.
type output struct {
	log   io.Writer
	limit *int64 // bytes that the task may still write, shared by its steps; below 0, so many were dropped
	over  func() // called once, when the limit is exceeded

	match    *regexp.Regexp // nil: nothing is counted
	progress func(done uint32, line string)
	done     uint32

	first string // the first line
	lines int64  // that have ended
	begun []byte // of the line of now, at most maxSeen
}

// Write hands p on to the log as far as the limit lets it, and drops and counts the rest. The error is the log's.
func (o *output) Write(p []byte) (int, error) {
	rest := *o.limit
	*o.limit -= int64(len(p))
	if rest < 0 {
		return len(p), nil
	}
	if *o.limit < 0 {
		defer o.over()
	}
	kept := p[:min(int64(len(p)), rest)]
	n, err := o.log.Write(kept)
	o.see(kept[:n])
	if err != nil {
		return n, err
	}
	return len(p), nil
}

// errOutput ends a step that has exceeded the limit; its client is told tooMuch, when all is counted.
var errOutput = errors.New("more output than output_limit_bytes")

// tooMuch is the end of a task that might write limit bytes, and of which -left were dropped.
func tooMuch(limit, left int64) *wire.Error {
	return &wire.Error{Code: wire.CodeOutputLimit, Message: fmt.Sprintf(
		"the task wrote %d bytes of output and its recipe's output_limit_bytes is %d: %d bytes were dropped", limit-left, limit, -left)}
}

// see looks at whole lines.
func (o *output) see(p []byte) {
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte("\n"))
		o.begun = append(o.begun, line[:min(len(line), maxSeen-len(o.begun))]...)
		if ended {
			o.endLine()
		}
		p = rest
	}
}

func (o *output) endLine() {
	line := string(bytes.TrimSuffix(o.begun, []byte("\r")))
	o.begun = o.begun[:0]
	if o.lines == 0 {
		o.first = line
	}
	o.lines++
	if o.match != nil && o.match.MatchString(line) {
		o.done++
		o.progress(o.done, strings.TrimSpace(line))
	}
}

// end says that no more is to come.
func (o *output) end() {
	if len(o.begun) > 0 {
		o.endLine()
	}
}

// commandLine is argv as a person reads it: one line of at most maxCommandLine bytes, in which nothing is
// hidden or moves what stands beside it. It is not meant for a shell.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, a := range argv {
		words[i] = a
		if a == "" || strings.ContainsFunc(a, func(r rune) bool {
			return r == ' ' || strings.ContainsRune("\"'\\$`;|&<>()*?[]#~!{}", r) || !strconv.IsPrint(r)
		}) {
			words[i] = fmt.Sprintf("%q", a)
		}
	}
	line := strings.Join(words, " ")
	if len(line) > maxCommandLine {
		line = strings.ToValidUTF8(line[:maxCommandLine-len("…")], "") + "…"
	}
	return line
}
