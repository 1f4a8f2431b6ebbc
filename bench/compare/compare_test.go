package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/bench/report"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == bare.RelayCommand { // as main does
		_ = bare.RelayMain(os.Args[2:], os.Stdin, os.Stdout)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// TestEveryScenarioMeasuresTheLoop without a broker: the bare write loop is a process of this program.
func TestEveryScenarioMeasuresTheLoop(t *testing.T) {
	s, err := loopSystem.start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.stop() }()
	o := options{clients: 40, messages: 400, seconds: 0.2, idle: 30 * time.Millisecond}
	var none []string
	for _, sc := range scenarios {
		r, ok := measureOne(t.Context(), o, sc, &running{name: "bare-loop", server: s}, 2)
		switch {
		case !ok:
			none = append(none, sc.name)
		case r.Error != "" || len(r.Values) == 0 || r.Faults != (crowd.Faults{}) || r.Number != 2 || r.Clients != 40:
			t.Errorf("%s: %+v", sc.name, r)
		}
	}
	if !slices.Equal(none, []string{"slow-readers", "reconnect"}) {
		t.Errorf("it has no %v", none)
	}
}

// TestAMessageThatIsLostIsCounted: the bare loop is told nothing.
func TestAMessageThatIsLostIsCounted(t *testing.T) {
	s, err := loopSystem.start(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.stop() }()
	c, err := gather(t.Context(), s, 3, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Expect(2); err != nil {
		t.Fatal(err)
	}
	if err := send(t.Context(), s, 1, 1); err != nil {
		t.Fatal(err)
	}
	if tally, err := c.Wait(t.Context(), 300*time.Millisecond); err != nil || tally.Got != 1 || tally.Lost != 1 {
		t.Errorf("%+v, %v", tally, err)
	}
}

// broken fails as a server may.
type broken struct {
	server
	log  []string
	dead bool
}

func (b *broken) clients(int, bool) (load.Plan, crowd.Options, error) {
	return load.Plan{}, crowd.Options{}, os.ErrDeadlineExceeded
}
func (b *broken) holders() []int { return []int{os.Getpid()} }
func (b *broken) kill()          { b.log = append(b.log, "kill") }
func (b *broken) revive(context.Context) error {
	b.log = append(b.log, "revive")
	if b.dead {
		return os.ErrNotExist
	}
	return nil
}

func TestASystemThatFailedIsStartedAgainAndItsRoundSaysWhy(t *testing.T) {
	b := &broken{}
	r, ok := measureOne(t.Context(), options{clients: 1}, scenario{name: "connect", measure: measureConnect}, &running{name: "broken", server: b}, 1)
	if !ok || r.Values != nil || !strings.Contains(r.Error, "timeout") || strings.Join(b.log, " ") != "kill revive" {
		t.Errorf("%+v, %v", r, b.log)
	}
	if got := outcome(r); !strings.HasPrefix(got, "FAILED: ") {
		t.Errorf("people are told %q", got)
	}
	b.dead = true
	s := &running{name: "broken", server: b}
	if r, _ := measureOne(t.Context(), options{clients: 1}, scenario{name: "connect", measure: measureConnect}, s, 2); !s.gone || !strings.Contains(r.Error, "could not be started again") {
		t.Errorf("%t, %+v", s.gone, r)
	}
}

func TestOutcomesTellWhatWentWrong(t *testing.T) {
	r := report.Round{Values: map[string]float64{"p50_ms": 1.5}, Faults: crowd.Faults{Lost: 2}}
	if got := outcome(r); got != "p50_ms=1.50 {Lost:2 Duplicated:0 Misordered:0 Misrouted:0}" {
		t.Errorf("got %q", got)
	}
}

func TestBadUsageIsExitCode2(t *testing.T) {
	for _, args := range []string{"-clients 31", "-clients 15001", "-rounds 0", "-messages 0", "-seconds 0", "-million -1", "-million 1000001", "-systems (", "-scenarios (", "-nothing", "now"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), append(strings.Fields(args), "-out", t.TempDir()), &out, &errs); code != 2 || errs.Len() == 0 {
			t.Errorf("%s: exit code %d, %q", args, code, errs.String())
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"-plot", "-out", filepath.Join(t.TempDir(), "new")}, &out, &errs); code != 1 || !strings.Contains(errs.String(), roundsFile) {
		t.Errorf("plots of nothing: exit code %d, %q", code, errs.String())
	}
}

func TestChannelsAndAddressees(t *testing.T) {
	if got := subscription(7, false) + " " + subscription(7, true); got != "c7 all" {
		t.Errorf("client 7 subscribes to %s", got)
	}
	if got := addressee(crowd.Message(1234, 1, 1)); got != 1234 {
		t.Errorf("it is for %d", got)
	}
}

func TestChildrenAreFound(t *testing.T) {
	c := exec.Command("sh", "-c", "sleep 30 & echo started; wait")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 16))
	all := children(c.Process.Pid)
	for _, pid := range slices.Backward(all) {
		p, _ := os.FindProcess(pid)
		_ = p.Kill()
	}
	_ = c.Wait() // it was killed
	if len(all) != 2 || all[0] != c.Process.Pid {
		t.Errorf("%v are %d and its child", all, c.Process.Pid)
	}
}

func TestMQTTStringsAreBehindTheirLength(t *testing.T) {
	if got := mqttString("MQTT"); !bytes.Equal(got, []byte("\x00\x04MQTT")) {
		t.Errorf("got %q", got)
	}
}

func TestEndingsAreToldByTheirCausesAndSinceTheBegin(t *testing.T) {
	netstat := "TcpExt: SyncookiesSent TCPTimeouts TCPAbortOnTimeout\nTcpExt: 7 %d %d\nIpExt: InNoRoutes\nIpExt: 0\n"
	page := "# TYPE wscluster_connections_closed_total counter\nwscluster_connections_closed_total{cause=\"silent\"} %d\n"
	told := func(timeouts, aborts, silent int) endings {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, page, silent) }))
		defer s.Close()
		e := endings{}
		if err := errors.Join(e.addKernel(fmt.Appendf(nil, netstat, timeouts, aborts)), e.addWorker(t.Context(), s.Listener.Addr().String())); err != nil {
			t.Fatal(err)
		}
		return e
	}
	before := told(3, 1, 2)
	if got := told(3, 1, 2).since(before); got != "none" {
		t.Errorf("got %q where nothing has ended", got)
	}
	if got, want := told(5, 1, 3).since(before), "kernel: TCPTimeouts 2, workers: silent 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
