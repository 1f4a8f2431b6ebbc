package amqp

import (
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

func TestOptionsSayEverythingThatIsWrong(t *testing.T) {
	_, err := New(Options{
		URLs:        []string{"amqp://user:secret@host:port/", "http://user:secret@host"},
		Heartbeat:   time.Millisecond,
		DialTimeout: -1,
		Window:      -1,
		MailboxType: "stream",
	})
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"URL 1", "URL 2", "heartbeat", "dial timeout", "window", "mailbox type"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the error shows the password: %v", err)
	}
	if _, err := New(Options{}); err == nil || !strings.Contains(err.Error(), "URL") {
		t.Errorf("no URL: got %v", err)
	}
}

func TestURLsAreTriedInTurn(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close() // it accepts and says nothing
	nobody := "amqp://worker:secret@127.0.0.1:1/"
	silent := "amqp://worker:secret@" + ln.Addr().String() + "/"
	id := broker.Worker(server())

	join(t, open(t, Options{URLs: []string{nobody, silent, rabbit.URL()}, DialTimeout: 2 * time.Second}), id)
	_, err = open(t, Options{URLs: []string{rabbit.URL(), nobody}}).Join(bounded(t), id)
	if !errors.Is(err, broker.ErrLocked) || strings.Contains(err.Error(), "127.0.0.1:1/") {
		t.Errorf("an identity that is held: got %v, want ErrLocked of the first broker alone", err)
	}
	_, err = open(t, Options{URLs: []string{nobody, silent}, DialTimeout: 100 * time.Millisecond}).Join(bounded(t), id)
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "127.0.0.1:1/") || !strings.Contains(err.Error(), ln.Addr().String()) {
		t.Errorf("nobody answers: got %v, want both addresses and no password", err)
	}
}

func TestWrongPasswordIsSaidWithoutIt(t *testing.T) {
	t.Parallel()
	u, err := url.Parse(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.UserPassword("worker", "no-such-secret")
	_, err = open(t, Options{URLs: []string{u.String()}}).Join(bounded(t), broker.Worker(server()))
	if err == nil || strings.Contains(err.Error(), "no-such-secret") || !strings.Contains(err.Error(), "403") {
		t.Errorf("got %v, want the broker's refusal and no password", err)
	}
}
