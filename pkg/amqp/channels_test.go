package amqp

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func subscribe(t testing.TB, l *link, names ...wire.Channel) *channels {
	t.Helper()
	c, err := l.OpenChannels(bounded(t), server())
	if err == nil {
		err = c.Bind(bounded(t), names...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c.(*channels)
}

func hears(t testing.TB, c broker.Channels, ids ...string) {
	t.Helper()
	for _, id := range ids {
		select {
		case p, ok := <-c.Posts():
			if !ok || p.ID != id {
				t.Fatalf("got post %q (%v), want %q", p.ID, ok, id)
			}
		case <-time.After(patience):
			t.Fatalf("post %q did not come", id)
		}
	}
}

// The client library keeps what is not read without a bound: the prefetch is the bound.
func TestUnreadPostsStayInTheBroker(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	c := subscribe(t, l, "unread")
	var ids []string
	for i := range 2 * postsAhead {
		ids = append(ids, strconv.Itoa(i))
	}
	store(t, l, broker.ToChannel("unread"), ids...)
	if waiting, unsettled := depth(t, c.queue); waiting != postsAhead || unsettled != postsAhead {
		t.Errorf("%d posts wait and %d are on their way, want %d and %d", waiting, unsettled, postsAhead, postsAhead)
	}
	hears(t, c, ids...)
}

// The prefetch is used up again and again: posts must not wait until it is time to acknowledge.
func TestManyPostsDoNotWaitForTheirAcknowledgement(t *testing.T) {
	const rounds = 20
	l := join(t, open(t, Options{}), broker.Worker(server()))
	c := subscribe(t, l, "many")
	var ids []string
	for i := range rounds * postsAhead {
		ids = append(ids, strconv.Itoa(i))
	}
	store(t, l, broker.ToChannel("many"), ids[0])
	go func() {
		for _, id := range ids[1:] {
			_, _ = l.Publish(t.Context(), broker.ToChannel("many"), broker.Message{ID: id, Transient: true})
		}
	}()
	start := time.Now()
	hears(t, c, ids...)
	if d := time.Since(start); d > rounds*postsAckedIn/2 {
		t.Errorf("%d posts took %v", len(ids), d)
	}
}

// Where deploy/rabbitmq was not imported there is no policy.
func TestWaitingPostsAreBoundedWithoutAPolicy(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	c := subscribe(t, l)
	out := eval(t, `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"`+c.queue+`">>)), io:format("~0p", [amqqueue:get_arguments(Q)])`)
	for _, want := range []string{
		`{<<"x-max-length">>,long,10000}`, `{<<"x-max-length-bytes">>,long,67108864}`, `{<<"x-overflow">>,longstr,<<"drop-head">>}`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%s does not hold %s", out, want)
		}
	}
}

// RabbitMQ closes a channel that keeps a delivery for consumer_timeout.
func TestPostsAreAcknowledgedSoonWhenFewCome(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	c := subscribe(t, l, "few")
	store(t, l, broker.ToChannel("few"), "1", "2", "3")
	hears(t, c, "1", "2", "3")
	for late := time.Now().Add(10 * postsAckedIn); ; time.Sleep(10 * time.Millisecond) {
		if waiting, unsettled := depth(t, c.queue); waiting+unsettled == 0 {
			return
		} else if time.Now().After(late) {
			t.Fatalf("%d posts wait and %d are not acknowledged", waiting, unsettled)
		}
	}
}

// depth asks the queue itself: how many messages wait, and how many are delivered and not acknowledged.
func depth(t testing.TB, queue string) (waiting, unsettled int) {
	t.Helper()
	out := eval(t, `{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"`+queue+`">>)),
		[{messages_ready, R}, {messages_unacknowledged, U}] = rabbit_amqqueue:info(Q, [messages_ready, messages_unacknowledged]),
		io:format("~p ~p", [R, U])`)
	ready, rest, _ := strings.Cut(out, " ")
	waiting, err := strconv.Atoi(ready)
	if err == nil {
		unsettled, err = strconv.Atoi(rest)
	}
	if err != nil {
		t.Fatalf("%q: %v", out, err)
	}
	return waiting, unsettled
}

// A worker that lacks a right of channels keeps its mailbox.
func TestRefusedBindingLeavesTheLink(t *testing.T) {
	_, user, rights := newUser(t)
	rights(".*", ".*", `^(?!channels\\.by-name$).*`)
	s := server()
	l := join(t, open(t, Options{URLs: []string{user}}), broker.Worker(s))
	m := own(t, l, s, 10)
	c := subscribe(t, l)
	for range 2 {
		if err := c.Bind(bounded(t), "a", "b", "c"); !isCode(err, amqp091.AccessRefused) || errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("bind without the right to: %v", err)
		}
	}
	rights(".*", ".*", ".*")
	if err := c.Bind(bounded(t), "later"); err != nil {
		t.Errorf("bind with the right to: %v", err)
	}
	store(t, l, broker.ToChannel("later"), "post")
	hears(t, c, "post")
	store(t, l, broker.ToMailbox(s), "event")
	expect(t, m, "event")
}

func TestChannelsEndWhenTheQueueIsTakenAway(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	c, err := l.OpenChannels(bounded(t), s)
	if err == nil {
		err = c.Bind(bounded(t), "taken")
	}
	if err != nil {
		t.Fatal(err)
	}
	l.deleteQueue(broker.ChannelsQueue(s))
	select {
	case _, ok := <-c.Posts():
		if ok {
			t.Error("a post came")
		}
	case <-time.After(patience):
		t.Fatal("the posts did not end")
	}
	if err := c.Bind(bounded(t), "more"); !errors.Is(err, broker.ErrLinkGone) {
		t.Errorf("bind after that: %v, want ErrLinkGone", err)
	}
	again, err := l.OpenChannels(bounded(t), s)
	for late := time.Now().Add(patience); errors.Is(err, broker.ErrLocked) && time.Now().Before(late); { // the end is told before the name is free
		again, err = l.OpenChannels(bounded(t), s)
	}
	if err == nil {
		err = again.Bind(bounded(t), "taken")
	}
	if err != nil {
		t.Fatal(err)
	}
	store(t, l, broker.ToChannel("taken"), "post")
	hears(t, again, "post")
}

// The example of deploy/rabbitmq/README.md: a publisher outside that may post to news.* and nothing else.
func TestTopicPermissionHoldsAPublisherToItsChannels(t *testing.T) {
	name, user, rights := newUser(t)
	rights("^$", "^channels$", "^$")
	eval(t, `ok = rabbit_auth_backend_internal:set_topic_permissions(<<"`+name+`">>, <<"/">>, <<"channels">>, <<"^news\\..+$">>, <<"^$">>, <<"test">>)`)
	l := join(t, open(t, Options{}), broker.Worker(server()))
	c := subscribe(t, l, "news.today", "workflows")

	conn, err := amqp091.Dial(user)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	post := func(exchange, key, id string) error {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		defer ch.Close()
		if err := ch.Confirm(false); err != nil {
			return err
		}
		closed := ch.NotifyClose(make(chan *amqp091.Error, 1))
		confirm, err := ch.PublishWithDeferredConfirm(exchange, key, false, false, amqp091.Publishing{MessageId: id, Body: []byte(`{}`)})
		if err != nil {
			return err
		}
		select {
		case <-confirm.Done():
			if confirm.Acked() {
				return nil
			}
			return <-closed
		case <-time.After(patience):
			return errors.New("no answer")
		}
	}
	if err := post(broker.ExchangeChannels, "news.today", "news"); err != nil {
		t.Errorf("post to its own channel: %v", err)
	}
	for _, to := range []broker.Address{
		broker.ToChannel("workflows"), broker.ToChannel("news"), {Exchange: broker.ExchangeNamed, Key: "news.today"},
		{Exchange: "", Key: c.queue}, broker.ToAll(),
	} {
		if err := post(to.Exchange, to.Key, "forged"); !isCode(err, amqp091.AccessRefused) {
			t.Errorf("post to exchange %q, key %q: %v, want access refused", to.Exchange, to.Key, err)
		}
	}
	store(t, l, broker.ToChannel("workflows"), "end")
	hears(t, c, "news", "end")
}

// newUser makes a user of the node for as long as the test runs. It may do nothing until rights says so.
func newUser(t testing.TB) (name, at string, rights func(configure, write, read string)) {
	t.Helper()
	u, err := url.Parse(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	name = "user-" + string(server())
	u.User = url.UserPassword(name, "secret")
	eval(t, `ok = rabbit_auth_backend_internal:add_user(<<"`+name+`">>, <<"secret">>, <<"test">>)`)
	t.Cleanup(func() { eval(t, `rabbit_auth_backend_internal:delete_user(<<"`+name+`">>, <<"test">>)`) })
	return name, u.String(), func(configure, write, read string) {
		t.Helper()
		eval(t, `ok = rabbit_auth_backend_internal:set_permissions(<<"`+name+`">>, <<"/">>, <<"`+configure+`">>, <<"`+write+`">>, <<"`+read+`">>, <<"test">>)`)
	}
}
