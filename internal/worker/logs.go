package worker

import (
	"context"
	"errors"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// maxReads is how many log_reads of one socket may wait for their answers. One that is answered is at most
// one frame in the socket's queue: who does not read gets no more.
const maxReads = 4

// pieceBytes is what a client gets of a log at once. It fits into the kernel's send buffer of a socket (16 KiB, which
// the kernel doubles): what does not waits for the client's delayed acknowledgements, and one client got 14,000 lines
// a second in pieces of 128 KiB, and 65,000 in these.
const pieceBytes = wire.MinLogChunk

// readLog answers a client's log_read, some time later.
func (s *surface) readLog(c engine.ConnRef, client socketmeta.ClientID, m *wire.LogRead) {
	s.mu.Lock()
	n := s.reads[c]
	if n < maxReads {
		s.reads[c]++
	}
	s.mu.Unlock()
	if n >= maxReads {
		s.reply(c, &wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeOverloaded, "%d log_reads of this socket wait for answers; await one", maxReads)})
		return
	}
	s.reading.Go(func() {
		lines, err := s.logLines(client, m)
		s.mu.Lock()
		if s.reads[c]--; s.reads[c] == 0 {
			delete(s.reads, c)
		}
		s.mu.Unlock()
		if err != nil {
			refusal, ok := errors.AsType[*wire.Error](err)
			if !ok {
				refusal = wire.Errorf(wire.CodeUnavailable, "%v", err)
			}
			s.reply(c, &wire.Refused{ID: m.ID, Task: m.Task, Error: *refusal})
			return
		}
		s.reply(c, lines)
	})
}

// logLines gets what m asks for. It blocks for a few seconds at most.
func (s *surface) logLines(client socketmeta.ClientID, m *wire.LogRead) (*wire.LogLines, error) {
	ctx := context.Background()
	runner, run := m.Runner, m.Run
	if runner == "" {
		found, err := s.mailbox.LogOf(ctx, client, m.Task, run)
		if err != nil {
			return nil, err
		}
		runner, run = found.Runner, found.Run
	}
	chunk, err := s.mailbox.ReadLog(ctx, runner, wire.ReadLog{Client: client, Task: m.Task, Run: run, Line: m.From, Max: pieceBytes})
	if err != nil {
		return nil, err
	}
	lines := &wire.LogLines{
		ID: m.ID, Task: m.Task, Attempt: chunk.Attempt, Run: chunk.Run, Runner: chunk.Runner,
		First: m.From, Lines: []string{}, LastLine: chunk.Lines, Ended: chunk.Ended,
	}
	lines.TakeLines(chunk.Data)
	return lines, nil
}
