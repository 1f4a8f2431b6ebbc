package wsclient

import (
	"errors"
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	o := Options{}.withDefaults()
	fixed := Options{BaseDelay: time.Second, MaxDelay: time.Minute}
	lost := errors.New("connection reset")
	closed := func(code int, after time.Duration) error { return &CloseError{Code: code, RetryAfter: after} }
	for _, test := range []struct {
		name   string
		o      *Options
		err    error
		retry  int
		random float64
		want   time.Duration
	}{
		{"first", &o, lost, 1, 0.5, 100 * time.Millisecond},
		{"second", &o, lost, 2, 0.5, 200 * time.Millisecond},
		{"third", &o, lost, 3, 0.5, 400 * time.Millisecond},
		{"full jitter", &o, lost, 3, 0, 0},
		{"cap", &o, lost, 20, 0.5, 5 * time.Second},
		{"overflow", &o, lost, 100, 0.5, 5 * time.Second},
		{"options", &fixed, lost, 2, 0.5, 2 * time.Second},
		{"the server asks for more", &o, closed(1012, 7*time.Second), 1, 0.5, 7 * time.Second},
		{"the server asks for less", &o, closed(1012, time.Millisecond), 1, 0.5, 100 * time.Millisecond},
		{"the server asks for too much", &o, closed(1012, 9*time.Hour), 1, 0.5, time.Hour},
		{"the proxy asks", &o, &HandshakeError{Status: 503, RetryAfter: 3 * time.Second}, 1, 0.5, 3 * time.Second},
		{"resume", &o, closed(4208, 0), 1, 0.5, 0},
		{"moved", &o, closed(4200, 0), 1, 0.5, 0},
		{"unconfirmed", &o, closed(4101, 0), 1, 0.5, 100 * time.Millisecond},
		{"resume in a row", &o, closed(4208, 0), 2, 0.5, 200 * time.Millisecond},
		{"resume later", &o, closed(4208, time.Second), 1, 0.5, time.Second},
		{"starved", &o, errStarved, 1, 0.5, 0},
		{"back off", &o, closed(4100, 0), 1, 0.5, 100 * time.Millisecond},
	} {
		if got := delay(test.o, test.err, test.retry, test.random); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestStops(t *testing.T) {
	for code, want := range map[int]bool{
		1000: false, 1001: false, 1006: false, 1008: true, 1009: false, 1011: false, 1012: false, 1013: false,
		3999: false, 4000: true, 4001: true, 4099: true, 4100: false, 4208: false, 4300: false,
	} {
		if got := stops(&CloseError{Code: code}); got != want {
			t.Errorf("%d stops %v, want %v", code, got, want)
		}
	}
	if stops(errors.New("connection reset")) {
		t.Error("a lost connection stops the client")
	}
}
