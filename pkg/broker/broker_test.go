package broker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestNamesAreThoseOfTheProtocol(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{broker.MailboxQueue("i1-w3"), "mailbox.i1-w3"},
		{broker.MailboxQueue(broker.ParkedServer), "parked"},
		{broker.TasksQueue("go-build", wire.Normal), "tasks.go-build"},
		{broker.TasksQueue("go-build", ""), "tasks.go-build"},
		{broker.TasksQueue("go-build", wire.High), "tasks.go-build.high"},
		{broker.Worker("i1-w3").Key(), "i1-w3"},
		{broker.Runner("r1").Key(), "r.r1"},
		{broker.Runner("r1").String(), "r.r1"},
		{broker.Worker("i1-w3").ControlQueue(), "control.i1-w3"},
		{broker.Runner("r1").ControlQueue(), "control.r.r1"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
	for _, test := range []struct{ got, want broker.Address }{
		{broker.ToMailbox("i1-w3"), broker.Address{Exchange: "utils", Key: "i1-w3"}},
		{broker.ToControl(broker.Runner("r1")), broker.Address{Exchange: "control", Key: "r.r1"}},
		{broker.ToAll(), broker.Address{Exchange: "announce"}},
		{broker.ToTasks("make", wire.Normal), broker.Address{Exchange: "tasks", Key: "make"}},
		{broker.ToTasks("make", wire.High), broker.Address{Exchange: "tasks", Key: "make.high"}},
		{broker.ToDeadEvents(), broker.Address{Exchange: "dead", Key: "event"}},
		{broker.ToDeadTasks(), broker.Address{Exchange: "dead", Key: "task"}},
		{broker.ToKeptTasks(), broker.Address{Exchange: "dead", Key: "kept"}},
	} {
		if test.got != test.want {
			t.Errorf("got %v, want %v", test.got, test.want)
		}
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	good := broker.Message{
		Headers: map[string]any{"s": "", "n": int64(0), "b": false},
		Body:    make([]byte, broker.MaxMessage),
	}
	if err := good.Check(); err != nil {
		t.Errorf("a message at its limits: %v", err)
	}
	long := broker.Message{Body: make([]byte, broker.MaxMessage+1)}
	if err := long.Check(); !errors.Is(err, broker.ErrTooLarge) {
		t.Errorf("one byte more: got %v, want ErrTooLarge", err)
	}
	odd := broker.Message{ID: "m1", Headers: map[string]any{"a": "", "seq": 7}}
	if err := odd.Check(); err == nil || !strings.Contains(err.Error(), `"m1"`) || !strings.Contains(err.Error(), `"seq" is a int`) {
		t.Errorf("a header of type int: got %v, want its name and type", err)
	}
}
