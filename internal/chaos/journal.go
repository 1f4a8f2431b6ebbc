package chaos

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Op says what an Entry of a journal tells.
type Op byte

// The operations. A journal is text, one entry a line: the letter, then the fields named here,
// with spaces between. N is the number of a run within its journal.
const (
	OpTime      Op = 't' // Time, in Unix milliseconds: of all that follows
	OpMet       Op = 'i' // Who, Client: a session of Who
	OpAsked     Op = 's' // Who, Task, Text (its kind): about to be submitted
	OpAccepted  Op = 'y' // Who, Task
	OpAbandoned Op = 'e' // Who, Task, Text: the server says that nothing more comes
	OpRun       Op = 'n' // N, Who, Task, Attempt, Run: publishers: Who is the client ID; clients: who got it
	OpAttempted Op = 'a' // N, Seq: about to be handed to the broker
	OpConfirmed Op = 'c' // N, Seq
	OpWire      Op = 'w' // N, Seq: came off a socket
	OpGot       Op = 'g' // N, Seq, Prev, Last: the application got it
	OpGap       Op = 'x' // N, Seq, Prev, Last, Text: the application was told that from Prev to Seq nothing comes, and why
)

// Entry is one line of a journal. Each Op has some of the fields.
type Entry struct {
	Op        Op
	Time      time.Time // OpTime; in all others, that of the last OpTime
	N         int
	Seq, Prev int64 // of durable events; transient ones stand in no journal
	Last      bool
	Who       string
	Client    string
	Run       RunKey
	Text      string
}

// RunKey names one run of a task.
type RunKey struct {
	Task    wire.TaskID
	Attempt int
	Run     wire.RunID
}

// compare orders runs of one task: the higher one counts.
func (k RunKey) compare(other RunKey) int {
	if k.Attempt != other.Attempt {
		return k.Attempt - other.Attempt
	}
	return strings.Compare(string(k.Run), string(other.Run))
}

// Journal writes one journal. Its methods are safe for concurrent use; the first error that a
// write meets is returned by every Flush, Sync and Close after it.
type Journal struct {
	file *os.File

	mu     sync.Mutex
	buf    []byte         // guarded by mu: not yet written
	told   int64          // guarded by mu: the last time written, Unix milliseconds
	runs   map[string]int // guarded by mu: numbers by who and run
	length int64          // guarded by mu: bytes appended
	err    error          // guarded by mu
}

// flushAt is how many bytes are kept at most before they are written.
const flushAt = 64 << 10

// CreateJournal creates the file, which must not exist.
func CreateJournal(path string) (*Journal, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	return &Journal{file: f, runs: map[string]int{}}, nil
}

// Met, Asked, Accepted and Abandoned note what their Op says.
func (j *Journal) Met(who, client string) { j.line("i " + who + " " + client) }

// Asked notes that who is about to submit a task.
func (j *Journal) Asked(who string, task wire.TaskID, kind string) {
	j.line("s " + who + " " + string(task) + " " + kind)
}

// Accepted notes that a task of who was accepted.
func (j *Journal) Accepted(who string, task wire.TaskID) { j.line("y " + who + " " + string(task)) }

// Abandoned notes that the server says that nothing more of a task comes.
func (j *Journal) Abandoned(who string, task wire.TaskID, why string) {
	j.line("e " + who + " " + string(task) + " " + strings.Join(strings.Fields(why), "_"))
}

// Attempted notes that an event of a run for client is about to be handed to the broker: Flush
// before it is.
func (j *Journal) Attempted(client string, run RunKey, seq int64) { j.event('a', client, run, seq, "") }

// Confirmed notes that the broker has it.
func (j *Journal) Confirmed(client string, run RunKey, seq int64) { j.event('c', client, run, seq, "") }

// Wire notes that it came off a socket of who.
func (j *Journal) Wire(who string, run RunKey, seq int64) { j.event('w', who, run, seq, "") }

// Got notes that the application of who got it.
func (j *Journal) Got(who string, run RunKey, seq, prev int64, last bool) {
	j.event('g', who, run, seq, fmt.Sprintf(" %d %d", prev, bit(last)))
}

// Gap notes that the application of who was told that the events from to seq will not come.
func (j *Journal) Gap(who string, run RunKey, seq, from int64, last bool, reason wire.GapReason) {
	j.event('x', who, run, seq, fmt.Sprintf(" %d %d %s", from, bit(last), reason))
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// event appends an entry of a run, and before the first one of who and run their number.
func (j *Journal) event(op Op, who string, run RunKey, seq int64, rest string) {
	key := fmt.Sprintf("%s %s %d %s", who, run.Task, run.Attempt, run.Run)
	j.mu.Lock()
	defer j.mu.Unlock()
	n, ok := j.runs[key]
	if !ok {
		n = len(j.runs) + 1
		j.runs[key] = n
		j.append("n " + strconv.Itoa(n) + " " + key)
	}
	j.append(string(op) + " " + strconv.Itoa(n) + " " + strconv.FormatInt(seq, 10) + rest)
}

func (j *Journal) line(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.append(s)
}

// append is called with j.mu held.
func (j *Journal) append(s string) {
	if now := time.Now().UnixMilli(); now != j.told {
		j.told = now
		j.put("t " + strconv.FormatInt(now, 10))
	}
	j.put(s)
	if len(j.buf) >= flushAt {
		j.flush()
	}
}

func (j *Journal) put(s string) {
	j.buf = append(append(j.buf, s...), '\n')
	j.length += int64(len(s)) + 1
}

// Flush hands all that was noted to the kernel: the death of this process does not lose it.
func (j *Journal) Flush() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.flush()
	return j.err
}

func (j *Journal) flush() {
	if j.err == nil && len(j.buf) > 0 {
		_, j.err = j.file.Write(j.buf)
	}
	j.buf = j.buf[:0]
}

// Length is how many bytes were noted.
func (j *Journal) Length() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.length
}

// Sync puts all that was noted on disk, and returns how many bytes that are.
func (j *Journal) Sync() (length int64, err error) {
	j.mu.Lock()
	j.flush()
	length, err = j.length, j.err
	j.mu.Unlock()
	return length, errors.Join(err, j.file.Sync())
}

// Close puts all on disk and closes the file.
func (j *Journal) Close() error {
	_, err := j.Sync()
	return errors.Join(err, j.file.Close())
}

// ReadJournal calls each for every entry. A last line without its end is left out: its writer was
// killed while it wrote.
func ReadJournal(r io.Reader, each func(Entry)) error {
	lines := bufio.NewReaderSize(r, flushAt)
	runs := map[int]Entry{}
	var now time.Time
	for count := 1; ; count++ {
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("journal: %w", err)
		}
		e, err := parseEntry(strings.Fields(line), runs)
		if err != nil {
			return fmt.Errorf("journal, line %d %q: %w", count, line, err)
		}
		if e.Op == OpTime {
			now = e.Time
			continue
		}
		e.Time = now
		each(e)
	}
}

// parseEntry reads the fields of one line. runs remembers what the numbers stand for.
func parseEntry(f []string, runs map[int]Entry) (e Entry, err error) {
	want := map[Op]int{OpTime: 2, OpMet: 3, OpAsked: 4, OpAccepted: 3, OpAbandoned: 4, OpRun: 6, OpAttempted: 3, OpConfirmed: 3, OpWire: 3, OpGot: 5, OpGap: 6}
	if len(f) == 0 || len(f[0]) != 1 || len(f) != want[Op(f[0][0])] {
		return e, errors.New("no entry has this form")
	}
	number := func(s string) int64 {
		n, nan := strconv.ParseInt(s, 10, 64)
		err = errors.Join(err, nan)
		return n
	}
	e.Op = Op(f[0][0])
	switch e.Op {
	case OpTime:
		e.Time = time.UnixMilli(number(f[1]))
	case OpMet:
		e.Who, e.Client = f[1], f[2]
	case OpAsked, OpAbandoned:
		e.Who, e.Run.Task, e.Text = f[1], wire.TaskID(f[2]), f[3]
	case OpAccepted:
		e.Who, e.Run.Task = f[1], wire.TaskID(f[2])
	case OpRun:
		e.N, e.Who = int(number(f[1])), f[2]
		e.Run = RunKey{wire.TaskID(f[3]), int(number(f[4])), wire.RunID(f[5])}
		runs[e.N] = e
	default:
		n := int(number(f[1]))
		run, ok := runs[n]
		if !ok {
			return e, fmt.Errorf("run %d has no name", n)
		}
		e.N, e.Who, e.Run, e.Seq = n, run.Who, run.Run, number(f[2])
		if e.Op == OpGot || e.Op == OpGap {
			e.Prev, e.Last = number(f[3]), f[4] == "1"
		}
		if e.Op == OpGap {
			e.Text = f[5]
		}
	}
	return e, err
}
