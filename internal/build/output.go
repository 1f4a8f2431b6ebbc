package build

import (
	"bytes"
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
	limit *int64 // bytes that the task may still write, shared by its steps
	over  func() // called once, when the limit is exceeded

	match    *regexp.Regexp // nil: nothing is counted
	progress func(done uint32, line string)
	done     uint32

	first string // the first line
	lines int64  // that have ended
	begun []byte // of the line of now, at most maxSeen
}

// Write hands p on to the log as far as the limit lets it. The error is a *wire.Error with code
// output_limit, or the log's.
func (o *output) Write(p []byte) (int, error) {
	if *o.limit < 0 {
		return 0, errOutput
	}
	rest := *o.limit
	if *o.limit -= int64(len(p)); *o.limit < 0 {
		p = p[:rest]
		defer o.over()
	}
	n, err := o.log.Write(p)
	o.see(p[:n])
	if err == nil && *o.limit < 0 {
		err = errOutput
	}
	return n, err
}

var errOutput = &wire.Error{Code: wire.CodeOutputLimit, Message: "the task wrote more output than its kind allows"}

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
