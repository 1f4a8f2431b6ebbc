package ask

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

var (
	alice, bob = socketmeta.NewClientID(), socketmeta.NewClientID()
	began      = time.Unix(1_800_000_000, 0)
)

func questionFor(c socketmeta.ClientID, key string) Question {
	return Question{Client: c, Key: key, Name: "approve", Body: []byte(`{"amount":12}`), Within: 30 * time.Second}
}

// told writes down what c orders.
func (c *core) told() string {
	var all []string
	for _, o := range c.takeOrders() {
		s := map[verb]string{deliver: "deliver", send: "send to ", say: "say to ", tellHere: "tell "}[o.verb] + string(o.to)
		switch {
		case o.verb == send && o.to == "":
			s += "all"
		case o.answer != nil:
			s = "answer " + string(o.answer.Body) + o.answer.Error
		case o.err != nil:
			s = "fail " + string(o.err.Code)
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

func expect(t *testing.T, c *core, want string) {
	t.Helper()
	if got := c.told(); got != want {
		t.Errorf("ordered %q, want %q", got, want)
	}
}

func mustAsk(t *testing.T, c *core, q Question, now time.Time) wire.RunID {
	t.Helper()
	answer, ask, err := c.asked(q, wire.NewRunID(), now)
	if answer != nil || err != nil {
		t.Fatalf("asked: %v, %v, want an open question", answer, err)
	}
	return ask
}

func TestAQuestionFollowsItsClientAndIsAnsweredOnce(t *testing.T) {
	c := newCore("i1-w1")
	ask := mustAsk(t, c, questionFor(alice, "k"), began)
	expect(t, c, "send to all")
	c.attached(bob, false, began)
	expect(t, c, "")
	c.heard(&wire.Moved{From: "i1-w2", Clients: []wire.Claim{{Client: bob}, {Client: alice}}}, began)
	expect(t, c, "send to i1-w2")
	c.heard(&wire.Owner{From: "i1-w2", Mailbox: "i1-w3"}, began) // adopted: the worker itself is not new
	expect(t, c, "")
	c.heard(&wire.Owner{From: "i1-w3", Mailbox: "i1-w3"}, began)
	expect(t, c, "send to i1-w3")
	c.attached(alice, false, began)
	expect(t, c, "send to i1-w1")
	c.linked(began)
	expect(t, c, "send to all")
	if err := c.reply(bob, &wire.Reply{Request: "i1-w1." + string(ask)}, began); err == nil || err.Code != wire.CodeForbidden {
		t.Errorf("the reply of another client: %v, want forbidden", err)
	}
	c.heard(&wire.ClientReplied{Ask: ask, Client: bob}, began)
	expect(t, c, "")
	c.heard(&wire.ClientReplied{Ask: ask, Client: alice, Body: []byte("7")}, began)
	expect(t, c, "answer 7")
	if err := c.reply(alice, &wire.Reply{Request: "i1-w1." + string(ask), Error: "no"}, began); err != nil {
		t.Errorf("a second reply: %v", err)
	}
	c.attached(alice, false, began)
	c.tick(began.Add(time.Hour))
	expect(t, c, "")
}

func TestAReplyGoesToTheWorkerThatAsked(t *testing.T) {
	c := newCore("i1-w1")
	ask := wire.NewRunID()
	if err := c.reply(alice, &wire.Reply{Request: "i2-w1." + string(ask), Body: []byte("7")}, began); err != nil {
		t.Error(err)
	}
	orders := c.takeOrders()
	if len(orders) != 1 || orders[0].to != "i2-w1" || orders[0].reply.Ask != ask || orders[0].reply.Client != alice || string(orders[0].reply.Body) != "7" {
		t.Errorf("ordered %+v", orders)
	}
	for _, id := range []string{"", "i1-w1", "i1-w1.7", string(ask), "_parked." + string(ask), "r.x." + string(ask)} {
		if err := c.reply(alice, &wire.Reply{Request: id}, began); err == nil || err.Code != wire.CodeBadFrame {
			t.Errorf("a reply to %q: %v, want bad_frame", id, err)
		}
	}
	expect(t, c, "")
}

func TestAQuestionOfAnotherWorkerIsDeliveredAndItsClientAnnouncedWhenItComesBack(t *testing.T) {
	c := newCore("i1-w1")
	m := &wire.AskClient{From: "i1-w2", Ask: wire.NewRunID(), Client: alice, Key: "k", Name: "n", TimeoutMS: 1000}
	c.heard(m, began)
	c.heard(m, began)
	expect(t, c, "deliver, deliver")
	other := *m
	other.From, other.Ask = "i1-w3", wire.NewRunID()
	c.heard(&other, began)
	c.heard(&wire.AskClient{From: "i1-w1", Ask: wire.NewRunID(), Client: alice, TimeoutMS: 1000}, began) // our own word to all
	another := *m
	another.Ask = wire.NewRunID()
	c.heard(&another, began)
	expect(t, c, "deliver, deliver")
	c.attached(bob, false, began)
	expect(t, c, "")
	c.attached(alice, true, began)
	expect(t, c, "")
	c.attached(alice, false, began)
	expect(t, c, "tell i1-w2, tell i1-w3")
	c.attached(alice, false, began.Add(time.Second))
	expect(t, c, "")
}

func TestWithoutAWordAQuestionIsSentAgainMoreAndMoreSeldom(t *testing.T) {
	sent := func(reached bool) (at []string) {
		c := newCore("i1-w1")
		q := questionFor(alice, "k")
		q.Within = MaxWithin
		ask := mustAsk(t, c, q, began)
		c.takeOrders()
		if reached {
			c.heard(&wire.Reached{Ask: ask}, began)
		}
		for now := c.next(); !now.IsZero(); now = c.next() {
			c.tick(now)
			for _, o := range c.takeOrders() {
				if o.verb == send {
					at = append(at, fmt.Sprint(now.Sub(began).Seconds(), "/", o.message.TimeoutMS/1000))
				} else {
					at = append(at, fmt.Sprint(now.Sub(began).Seconds(), " ", o.err.Code))
				}
			}
		}
		return at
	}
	if got, want := strings.Join(sent(false), ", "), "1/299, 5/295, 21/279, 81/219, 141/159, 201/99, 261/39, 300 no_answer"; got != want {
		t.Errorf("sent again after %s s, want %s", got, want)
	}
	if got, want := strings.Join(sent(true), ", "), "15/285, 75/225, 135/165, 195/105, 255/45, 300 no_answer"; got != want {
		t.Errorf("of a client that was reached: after %s s, want %s", got, want)
	}
}

func TestTwoQuestionsWithOneKeyAreOne(t *testing.T) {
	c := newCore("i1-w1")
	q := questionFor(alice, "k")
	ask := mustAsk(t, c, q, began)
	if again := mustAsk(t, c, q, began); again != ask {
		t.Errorf("asked twice, as %s and %s", ask, again)
	}
	if other := mustAsk(t, c, questionFor(bob, "k"), began); other == ask {
		t.Error("two clients have one question")
	}
	different := q
	different.Body = []byte("13")
	if _, _, err := c.asked(different, wire.NewRunID(), began); err == nil || err.Code != wire.CodeConflict {
		t.Errorf("another question under the same key: %v, want conflict", err)
	}
	c.heard(&wire.ClientReplied{Ask: ask, Client: alice, Error: "no"}, began)
	c.takeOrders()
	for _, later := range []time.Duration{0, keepFor - 1} {
		if a, _, err := c.asked(q, wire.NewRunID(), began.Add(later)); a == nil || a.Error != "no" || err != nil {
			t.Errorf("after %v: %v, %v, want the same answer", later, a, err)
		}
	}
	if _, _, err := c.asked(different, wire.NewRunID(), began); err == nil || err.Code != wire.CodeConflict {
		t.Errorf("another question under the key of an answer: %v, want conflict", err)
	}
	expect(t, c, "")
	if again := mustAsk(t, c, q, began.Add(keepFor)); again == ask {
		t.Error("an old answer's question is open again")
	}
	expect(t, c, "send to all")
}

func TestAQuestionWithoutAnAnswerMayBeAskedAgain(t *testing.T) {
	c := newCore("i1-w1")
	q := questionFor(alice, "k")
	mustAsk(t, c, q, began)
	c.takeOrders()
	c.tick(began.Add(q.Within - 1))
	expect(t, c, "send to all")
	c.tick(began.Add(q.Within))
	expect(t, c, "fail no_answer")
	mustAsk(t, c, q, began.Add(q.Within))
	expect(t, c, "send to all")
	c.giveUp(errClosed)
	expect(t, c, "fail unavailable")
	if len(c.open)+len(c.byClient)+len(c.byName) != 0 {
		t.Errorf("%d, %d and %d are left", len(c.open), len(c.byClient), len(c.byName))
	}
}

func TestAQuestionWhoseTimeIsUpGivesItsKeyBackBeforeItsTick(t *testing.T) {
	c := newCore("i1-w1")
	q := questionFor(alice, "k")
	first := mustAsk(t, c, q, began)
	expect(t, c, "send to all")
	q.Name = "refuse"
	if second := mustAsk(t, c, q, began.Add(q.Within)); second == first {
		t.Error("a question of another name is the one whose time is up")
	}
	expect(t, c, "fail no_answer, send to all")
}

func TestOpenQuestionsAndKeptAnswersAreBounded(t *testing.T) {
	c := newCore("i1-w1")
	key := func(i int) Question { return questionFor(alice, fmt.Sprint(i)) }
	var asks []wire.RunID
	for i := range MaxOpen {
		asks = append(asks, mustAsk(t, c, key(i), began))
	}
	if _, _, err := c.asked(key(MaxOpen), wire.NewRunID(), began); err == nil || err.Code != wire.CodeOverloaded {
		t.Errorf("one too many: %v, want overloaded", err)
	}
	for _, ask := range asks {
		c.replied(ask, alice, Answer{Body: json.RawMessage("1")}, began)
	}
	if len(c.open) != 0 || len(c.kept) != maxKept || len(c.byName) != maxKept || c.bytes != maxKept {
		t.Errorf("%d open, %d kept, %d named, %d bytes; want the last %d", len(c.open), len(c.kept), len(c.byName), c.bytes, maxKept)
	}
	big := bytes.Repeat([]byte("1"), wire.MaxClientFrame)
	for i := range 2 * maxKeptBytes / len(big) {
		c.replied(mustAsk(t, c, key(2000+i), began), alice, Answer{Body: big}, began)
	}
	if c.bytes > maxKeptBytes || len(c.kept) != maxKeptBytes/len(big) {
		t.Errorf("%d answers of %d bytes are kept, want %d bytes at most", len(c.kept), c.bytes, maxKeptBytes)
	}
	c.tick(began.Add(keepFor))
	if len(c.kept)+len(c.byName)+c.bytes != 0 || !c.next().IsZero() {
		t.Errorf("%d are kept for too long", len(c.kept))
	}
}

func TestWhatOthersAskIsBounded(t *testing.T) {
	w := wanted{byClient: map[socketmeta.ClientID][]*wish{}}
	ask := func(c socketmeta.ClientID, ms int64, now time.Time) {
		w.add(&wire.AskClient{From: "i1-w2", Ask: wire.NewRunID(), Client: c, TimeoutMS: ms}, now)
	}
	ask(alice, 1<<50, began)
	for range maxWanted {
		ask(socketmeta.NewClientID(), 30_000, began)
	}
	if len(w.all) != maxWanted || len(w.byClient) != maxWanted || w.by(alice, began) != nil {
		t.Errorf("%d of %d clients are remembered, want the last %d", len(w.all), len(w.byClient), maxWanted)
	}
	ask(alice, 1<<50, began.Add(30*time.Second))
	if len(w.all) != 1 || len(w.byClient) != 1 {
		t.Errorf("%d of %d clients are remembered, want the one that somebody waits for", len(w.all), len(w.byClient))
	}
	if w.by(alice, began.Add(30*time.Second+MaxWithin)) != nil {
		t.Error("somebody waits for longer than anybody may")
	}
}
