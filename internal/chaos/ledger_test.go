package chaos

import (
	"strings"
	"testing"
	"time"
)

// good is a run in which all is well: task t of client c1, whose session is A, has three events.
const good = `t 1000
i c1 A
s c1 t chaos
y c1 t
n 1 A t 1 r1
a 1 1
a 1 2
a 1 3
c 1 1
c 1 2
c 1 3
t 2000
n 2 c1 t 1 r1
w 2 1
g 2 1 0 0
w 2 2
g 2 2 1 0
w 2 3
g 2 3 2 1
`

func reportOf(t *testing.T, journal string, more ...func(*Ledger)) Report {
	t.Helper()
	l := NewLedger()
	if err := l.Read(strings.NewReader(journal)); err != nil {
		t.Fatal(err)
	}
	for _, f := range more {
		f(l)
	}
	return l.Report()
}

// without returns a journal without some of its lines.
func without(journal string, lines ...string) string {
	for _, line := range lines {
		journal = strings.Replace(journal, "\n"+line+"\n", "\n", 1)
	}
	return journal
}

func TestALedgerOfARunInWhichAllIsWell(t *testing.T) {
	r := reportOf(t, good)
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	const want = "ledger: confirmed=3 delivered=3 lost=0 misrouted=0 misordered=0 app_duplicates=0 wire_duplicates=0 faults=0"
	if got := r.String(); !strings.HasSuffix(got, "\n"+want) {
		t.Errorf("the last line is not %q:\n%s", want, got)
	}
}

func TestALedgerSeesEveryKindOfWrong(t *testing.T) {
	for _, tt := range []struct{ name, journal, want string }{
		{"lost in the middle", without(good, "w 2 2", "g 2 2 1 0"), "1 events are lost, 1 came out of order"},
		{"the end is lost", without(good, "w 2 3", "g 2 3 2 1"), "1 events are lost, 1 tasks have no end"},
		{"lost after the socket", without(good, "g 2 3 2 1"), "1 events are lost, 1 tasks have no end"},
		{"all is lost", good[:strings.Index(good, "t 2000")], "3 events are lost, 1 tasks have no end"},
		{"the task is lost", good[:strings.Index(good, "n 1 A")], "1 tasks have no end"},
		{"given up by the server", without(good, "w 2 3", "g 2 3 2 1") + "e c1 t unknown\n", "1 events are lost, 1 tasks have no end"},
		{"twice", good + "g 2 2 1 0\n", "1 came twice"},
		{"the final event twice", good + "g 2 3 2 1\n", "1 came twice"},
		{"swapped", without(good, "g 2 2 1 0") + "g 2 2 1 0\n", "2 came out of order"},
		{"an earlier run after a later one", good + "n 3 c1 t 0 r0\ng 3 1 0 0\n", "1 came out of order"},
		{"a later run after the end", good + "n 3 c1 t 2 r2\ng 3 1 0 0\n", "1 came out of order"},
		{"a run from its middle", without(good, "g 2 1 0 0"), "1 events are lost, 1 came out of order"},
		{"to another client's application", good + "i c2 B\nn 3 c2 t 1 r1\nw 3 1\n", "1 came to the wrong socket"},
		{"published for another client", strings.Replace(good, "n 1 A", "i c2 B\nn 1 B", 1), "3 came to the wrong socket"},
		{"published for nobody known", strings.Replace(good, "n 1 A", "n 1 Z", 1), "3 came to the wrong socket"},
		{"dead", without(good, "g 2 3 2 1") + "x 2 3 3 1 caps\n", "1 are dead (caps), which no fault explains"},
		{"a gap too far", without(good, "g 2 2 1 0", "g 2 3 2 1") + "x 2 3 3 1 caps\n", "2 events are lost, 1 came out of order"},
		{"a run of a runner with a hole", "i c1 A\ns c1 u countdown\ny c1 u\nn 1 c1 u 1 r\ng 1 1 0 0\ng 1 3 2 1\n", "1 came out of order"},
		{"a runner without an end", "i c1 A\ns c1 u countdown\ny c1 u\nn 1 c1 u 1 r\ng 1 1 0 0\n", "1 tasks have no end"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := reportOf(t, tt.journal)
			err := r.Check()
			if err == nil || err.Error() != "the guarantee did not hold: "+tt.want {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if r.Confirmed != r.Delivered+total(r.Dead)+len(r.Lost) {
				t.Errorf("%d confirmed, %d delivered, %v dead, %d lost", r.Confirmed, r.Delivered, r.Dead, len(r.Lost))
			}
		})
	}
}

func TestALedgerForgivesWhatIsNoFault(t *testing.T) {
	for _, tt := range []struct {
		name, journal string
		want          Report
	}{
		{"again on the wire", good + "w 2 3\nw 2 3\n", Report{Attempted: 3, Confirmed: 3, Delivered: 3, Wire: 2}},
		{"never confirmed, never delivered", without(good, "c 1 3", "g 2 3 2 1") + "n 3 c1 t 2 r2\ng 3 1 0 1\n",
			Report{Attempted: 3, Confirmed: 2, Delivered: 2, Runners: 1}},
		{"the publisher died before the confirm", without(good, "c 1 3"), Report{Attempted: 3, Confirmed: 2, Delivered: 2, Unconfirmed: 1}},
		{"another run took over", without(good, "w 2 3", "g 2 3 2 1") + "n 3 c1 t 2 r2\ng 3 1 0 1\n",
			Report{Attempted: 3, Confirmed: 2, Delivered: 2, Superseded: 1, Runners: 1}},
		{"the earlier run came first", good + "n 3 A t 2 r2\na 3 1\nc 3 1\n", Report{Attempted: 4, Confirmed: 3, Delivered: 3, Superseded: 1}},
		{"journals the other way round", good[strings.Index(good, "t 2000"):] + good[:strings.Index(good, "t 2000")],
			Report{Attempted: 3, Confirmed: 3, Delivered: 3}},
		{"not accepted", "s c1 u chaos\n", Report{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := reportOf(t, tt.journal)
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			got := Report{Attempted: r.Attempted, Confirmed: r.Confirmed, Delivered: r.Delivered, Superseded: r.Superseded,
				Unconfirmed: r.Unconfirmed, Wire: r.Wire, Runners: r.Runners}
			if got.String() != tt.want.String() {
				t.Errorf("got\n%s\nwant\n%s", got.String(), tt.want.String())
			}
		})
	}
}

func TestTheDeadAreToldByReasonAndAllowedByReason(t *testing.T) {
	journal := without(good, "g 2 3 2 1") + "x 2 3 3 1 expired\n"
	r := reportOf(t, journal)
	if err := r.Check("expired"); err != nil || r.Dead["expired"] != 1 || r.Delivered != 2 {
		t.Errorf("%v, %v dead, %d delivered", err, r.Dead, r.Delivered)
	}
	r = reportOf(t, without(good, "g 2 3 2 1"), func(l *Ledger) { l.Dead(RunKey{"t", 1, "r1"}, 3, "caps") })
	if r.Dead["caps"] != 1 || len(r.Lost) != 0 {
		t.Errorf("%v dead, %v lost", r.Dead, r.Lost)
	}
}

func TestALostEventSaysWhereItWasSeen(t *testing.T) {
	r := reportOf(t, without(good, "g 2 3 2 1"))
	if len(r.Lost) != 1 || !strings.Contains(r.Lost[0].String(), "event 3 for A") || !strings.Contains(r.Lost[0].String(), "on its client's socket") {
		t.Errorf("got %v", r.Lost)
	}
	r.Lost[0].Seen = "in mailbox.i1-w1"
	if !strings.Contains(r.String(), "in mailbox.i1-w1") {
		t.Errorf("got\n%s", r.String())
	}
}

// TestAFaultCountsIfEventsWereInFlight: the events of good are handed over at 1000 and got at 2000.
func TestAFaultCountsIfEventsWereInFlight(t *testing.T) {
	r := reportOf(t, good, func(l *Ledger) {
		for _, ms := range []int64{999, 1000, 1500, 2000} {
			l.Fault(Fault{Kind: WorkerKill}, time.UnixMilli(ms))
		}
	})
	if r.Faults[WorkerKill] != 2 || r.Idle[WorkerKill] != 2 || r.Recovered != 3 {
		t.Errorf("%d faults counted, %d not, %d events recovered", r.Faults[WorkerKill], r.Idle[WorkerKill], r.Recovered)
	}
	// An event that never arrives is not in flight for ever.
	r = reportOf(t, without(good, "g 2 3 2 1"), func(l *Ledger) { l.Fault(Fault{Kind: WorkerKill}, time.UnixMilli(3000)) })
	if r.Idle[WorkerKill] != 1 {
		t.Errorf("%d faults counted", r.Faults[WorkerKill])
	}
}

func TestASessionThatWasNotResumedIsCounted(t *testing.T) {
	if r := reportOf(t, good+"i c1 B\n"); r.Sessions != 1 {
		t.Errorf("got %d", r.Sessions)
	}
}
