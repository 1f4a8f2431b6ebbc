package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// LogRead asks for lines of the log of a task that this client submitted, now or long ago. It is answered
// with LogLines, or with an error with code log_unavailable if no runner that can be reached has them.
type LogRead struct {
	ID     string `json:"id,omitempty"` // echoed in the reply
	Task   TaskID `json:"task_id"`
	Runner string `json:"runner,omitempty"` // who has the log, as a started event or an earlier reply says; else all runners are asked
	Run    RunID  `json:"run_id,omitempty"` // the latest if left out
	From   int64  `json:"from_line"`        // counted from 1
}

// LogLines replies to LogRead: as many lines as fit, or none if the log has not come that far.
type LogLines struct {
	ID       string   `json:"id,omitempty"`
	Task     TaskID   `json:"task_id"`
	Attempt  int      `json:"attempt"`
	Run      RunID    `json:"run_id"`
	Runner   string   `json:"runner"`
	First    int64    `json:"first_line"`
	Lines    []string `json:"lines"`
	LastLine int64    `json:"last_line"` // that the log has now
	Ended    bool     `json:"ended"`     // nothing will be added
}

func (*LogRead) clientMessage()  {}
func (*LogLines) serverMessage() {}

func (m *LogRead) check() error {
	if err := checkRequestID(m.ID); err != nil {
		return err
	}
	if err := checkTaskID(m.Task); err != nil {
		return err
	}
	if m.Runner != "" {
		if err := CheckRunner(m.Runner); err != nil {
			return err
		}
	}
	if _, err := ParseRunID(string(m.Run)); m.Run != "" && err != nil {
		return fmt.Errorf("run_id: %w", err)
	}
	if m.From < 1 || m.From > MaxNumber {
		return fmt.Errorf("from_line %d is out of range", m.From)
	}
	return nil
}

func (m *LogLines) check() error {
	if m.First < 1 || m.LastLine < 0 {
		return errors.New("first_line or last_line is out of range")
	}
	return checkTaskID(m.Task)
}

// TakeLines moves whole lines from data into Lines until the frame would exceed MaxServerFrame, for
// their characters may need escapes. At least one line is taken.
func (m *LogLines) TakeLines(data []byte) {
	const room = MaxServerFrame - 2<<10
	size := 0
	for line := range bytes.Lines(data) {
		text := strings.TrimSuffix(string(line), "\n")
		if size += encodedSize(text); size > room && len(m.Lines) > 0 {
			return
		}
		m.Lines = append(m.Lines, text)
	}
}

// encodedSize is what a string costs in JSON at most, quotes and a comma included.
func encodedSize(s string) int {
	n := len(s) + len(`"",`)
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ' || c == 0x7f:
			n += 5
		case c == '"' || c == '\\':
			n++
		case c == 0xe2: // U+2028 and U+2029 are escaped: three bytes become six
			n += 3
		}
	}
	return n
}
