package amqp

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Row D10 of the requirements: the mailbox is visible in RabbitMQ itself.
func TestMailboxIsBoundByItsServerID(t *testing.T) {
	b := open(t, Options{})
	first, second := server(), server()
	l := join(t, b, broker.Worker(first))
	own(t, l, first, 10)
	own(t, l, second, 10)
	table, err := rabbit.Ctl(bounded(t), "list_bindings", "source_name", "source_kind", "destination_name", "destination_kind", "routing_key")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for line := range strings.Lines(table) {
		found[strings.TrimSuffix(line, "\n")]++
	}
	if found["channels\texchange\tchannels.by-name\texchange\t#"] != 1 {
		t.Error("what is posted by channel does not reach those who bind by name")
	}
	for _, s := range []string{string(first), string(second)} {
		for _, want := range []string{"utils\texchange\tmailbox." + s + "\tqueue\t" + s, "hold\texchange\thold." + s + "\tqueue\t" + s} {
			if found[want] != 1 {
				t.Errorf("binding %q was listed %d times, want once", want, found[want])
			}
		}
	}
	exchanges := eval(t, `[io:format("~s ~p ~p~n", [element(4, N), T, D]) ||
		X <- rabbit_exchange:list(<<"/">>), [{name, N}, {type, T}, {durable, D}] <- [rabbit_exchange:info(X, [name, type, durable])]]`)
	for _, want := range []string{
		"utils direct true", "utils.unrouted fanout true", "control direct true",
		"announce fanout true", "tasks direct true", "hold direct true", "dead direct true",
		"channels topic true", "channels.by-name direct true",
	} {
		if !strings.Contains("\n"+exchanges, "\n"+want+"\n") {
			t.Errorf("exchange %q is not among\n%s", want, exchanges)
		}
	}
}

// Who may not declare exchanges finds those of the driver made.
func TestShippedExchangesAreThoseThatAreDeclared(t *testing.T) {
	data, err := os.ReadFile("../../deploy/rabbitmq/definitions.json")
	if err != nil {
		t.Fatal(err)
	}
	type exchange struct {
		Name     string
		Type     string
		Durable  bool
		Internal bool
	}
	var shipped struct {
		Exchanges []exchange
		Bindings  []struct{ Source, Destination, Routing_key string }
	}
	if err := json.Unmarshal(data, &shipped); err != nil {
		t.Fatal(err)
	}
	found := map[exchange]bool{}
	for _, e := range shipped.Exchanges {
		found[e] = true
	}
	for _, e := range exchanges {
		if want := (exchange{e.name, e.kind, true, e.internal}); !found[want] {
			t.Errorf("there is no %+v", want)
		}
	}
	if len(found) != len(exchanges) {
		t.Errorf("%d exchanges are shipped and %d declared", len(found), len(exchanges))
	}
	if len(shipped.Bindings) != 1 || shipped.Bindings[0] != struct{ Source, Destination, Routing_key string }{broker.ExchangeChannels, broker.ExchangeNamed, "#"} {
		t.Errorf("shipped bindings %+v, want the one of %s", shipped.Bindings, broker.ExchangeNamed)
	}
}

// What deploy/rabbitmq ships must apply to what the driver declares.
func TestShippedPoliciesApply(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	own(t, l, s, 10)
	own(t, l, broker.ParkedServer, 10)
	if _, err := l.OpenTasks(bounded(t), []string{"policies"}, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := l.OpenChannels(bounded(t), s); err != nil {
		t.Fatal(err)
	}
	queues := eval(t, `[io:format("~s ~p ~s ~0p~n", [element(4, amqqueue:get_name(Q)), amqqueue:get_type(Q), rabbit_policy:name(Q), rabbit_policy:effective_definition(Q)]) ||
		Q <- rabbit_amqqueue:list()]`)
	found := map[string]string{}
	for line := range strings.Lines(queues) {
		name, rest, _ := strings.Cut(line, " ")
		found[name] = rest
	}
	const rejects = `{<<"overflow">>,<<"reject-publish">>}`
	for queue, want := range map[string][]string{
		broker.MailboxQueue(s):                     {"rabbit_classic_queue mailbox ", rejects, `{<<"max-length">>,200000}`, `{<<"max-length-bytes">>,536870912}`, `{<<"expires">>,604800000}`},
		broker.HoldQueue(s):                        {"rabbit_classic_queue hold ", rejects, `{<<"max-length">>,200000}`, `{<<"max-length-bytes">>,536870912}`},
		broker.QueueParked:                         {"rabbit_classic_queue parked ", rejects, `{<<"max-length">>,200000}`, `{<<"max-length-bytes">>,536870912}`},
		broker.TasksQueue("policies", wire.High):   {"rabbit_quorum_queue tasks ", rejects, `{<<"delivery-limit">>,100000}`, `{<<"dead-letter-strategy">>,<<"at-least-once">>}`},
		broker.TasksQueue("policies", wire.Normal): {"rabbit_quorum_queue tasks ", rejects, `{<<"delivery-limit">>,100000}`, `{<<"dead-letter-strategy">>,<<"at-least-once">>}`},
		broker.Worker(s).ControlQueue():            {"rabbit_classic_queue control ", `{<<"max-length">>,10000}`},
		broker.ChannelsQueue(s):                    {"rabbit_classic_queue channels ", `{<<"overflow">>,<<"drop-head">>}`, `{<<"max-length">>,10000}`, `{<<"max-length-bytes">>,67108864}`},
		broker.QueueDeadEvents:                     {"rabbit_classic_queue dead ", rejects, `{<<"max-length-bytes">>,536870912}`},
		broker.QueueDeadTasks:                      {"rabbit_classic_queue dead ", rejects, `{<<"max-length-bytes">>,536870912}`},
		broker.QueueKeptTasks:                      {"rabbit_classic_queue kept ", `{<<"overflow">>,<<"drop-head">>}`, `{<<"max-length">>,10000}`, `{<<"max-length-bytes">>,67108864}`, `{<<"message-ttl">>,604800000}`},
	} {
		if !strings.HasPrefix(found[queue], want[0]) {
			t.Errorf("%s: %q, want %q", queue, found[queue], want[0])
		}
		for _, definition := range want[1:] {
			if !strings.Contains(found[queue], definition) {
				t.Errorf("%s: %q does not hold %s", queue, found[queue], definition)
			}
		}
	}
	for _, queue := range []string{broker.QueueParked, broker.HoldQueue(s), broker.HoldQueue(broker.ParkedServer)} {
		if strings.Contains(found[queue], "expires") {
			t.Errorf("what is in %s would expire in silence", queue)
		}
	}
}

func TestShippedRightsAreEnoughAndNoMore(t *testing.T) {
	worker, runner := open(t, Options{URLs: []string{rabbit.URLFor("worker")}}), open(t, Options{URLs: []string{rabbit.URLFor("runner")}})
	s, kind := server(), "rights"
	w, r := join(t, worker, broker.Worker(s)), join(t, runner, broker.Runner("rights"))
	m := own(t, w, s, 10)
	tasks, err := r.OpenTasks(bounded(t), []string{kind}, 1)
	if err != nil {
		t.Fatal(err)
	}
	store(t, w, broker.ToTasks(kind, wire.Normal), "task")
	store(t, w, broker.ToControl(broker.Runner("rights")), "cancel")
	store(t, w, broker.ToAll(), "all")
	store(t, w, broker.ToDeadEvents(), "dead")
	store(t, w, broker.ToMailbox(s), "forward")
	store(t, r, broker.ToMailbox(s), "event")
	store(t, r, broker.ToControl(broker.Worker(s)), "control")
	store(t, r, broker.ToDeadTasks(), "dead")
	dead, err := r.OpenDeadTasks(bounded(t), 100)
	if err != nil {
		t.Fatal(err)
	}
	for id := ""; id != "dead"; { // other tests have left some
		d := <-dead.Deliveries()
		id = d.ID
		store(t, r, broker.ToKeptTasks(), d.ID)
		if err := dead.Ack(d.Tag); err != nil {
			t.Fatal(err)
		}
	}
	store(t, r, broker.ToAll(), "kinds")
	ledger, err := r.OpenLedger(bounded(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	store(t, r, broker.ToLedger(), "record")
	for id := ""; id != "record"; {
		record, err := ledger.Next(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		id = record.ID
	}
	expect(t, tasks, "task")
	for _, tag := range expect(t, m, "forward", "event") {
		if err := m.Ack(tag); err != nil {
			t.Error(err)
		}
	}
	channels, err := w.OpenChannels(bounded(t), s)
	if err == nil {
		err = errors.Join(channels.Bind(bounded(t), "rights"), channels.BindAll(bounded(t)))
	}
	if err != nil {
		t.Fatal(err)
	}
	store(t, r, broker.ToChannel("rights"), "of the runner")
	store(t, w, broker.ToChannel("rights.other"), "of the worker")
	for _, want := range []string{"of the runner", "of the worker"} {
		if p := <-channels.Posts(); p.ID != want {
			t.Errorf("post %q, want %q", p.ID, want)
		}
	}
	if err := errors.Join(channels.Unbind(bounded(t), "rights"), channels.UnbindAll(bounded(t))); err != nil {
		t.Error(err)
	}
	own(t, w, broker.ParkedServer, 10)
	gone := abandoned(t, join(t, open(t, Options{}), broker.Worker(server())))
	adopted := adopt(t, w, gone, 10)
	store(t, w, broker.ToHold(gone), "held")
	if ds, _, err := adopted.TakeHeld(bounded(t), 10); err != nil || len(ds) != 1 || adopted.Ack(ds[0].Tag) != nil {
		t.Errorf("take what is held: %v, %v", ds, err)
	}
	if err := errors.Join(adopted.Unbind(bounded(t)), adopted.Delete(bounded(t)), w.Register(bounded(t), s)); err != nil {
		t.Error(err)
	}
	if _, err := w.Servers(bounded(t)); err != nil {
		t.Error(err)
	}
	if _, err := w.Lock(bounded(t), broker.LockJanitor); err != nil {
		t.Error(err)
	}

	if _, err := r.OpenMailbox(bounded(t), server(), 1); err == nil {
		t.Error("a runner opened a mailbox")
	}
	if _, err := r.AdoptMailbox(bounded(t), s, 1); err == nil || errors.Is(err, broker.ErrRefused) {
		t.Errorf("a runner adopted a mailbox: %v", err)
	}
	if _, err := r.OpenChannels(bounded(t), server()); err == nil || errors.Is(err, broker.ErrLocked) {
		t.Errorf("a runner opened channels: %v", err)
	}
	if err := r.Register(bounded(t), server()); err == nil {
		t.Error("a runner wrote to the register")
	}
	if _, err := runner.Join(bounded(t), broker.Worker(server())); err == nil {
		t.Error("a runner joined as a worker")
	}
	if _, err := w.OpenTasks(bounded(t), []string{"new-kind"}, 1); err == nil {
		t.Error("a worker made a task queue")
	}
	if _, err := w.OpenLedger(bounded(t), 0); err == nil {
		t.Error("a worker opened the ledger")
	}
	store(t, r, broker.ToMailbox(s), "still here")
	if _, err := w.OpenTasks(bounded(t), []string{kind}, 1); err == nil && !strings.Contains(ended(t, w).Error(), "ACCESS_REFUSED") {
		t.Errorf("a worker took tasks: %v", w.Err())
	}
}

// Deleting a queue to declare it anew would delete its messages.
func TestDriftIsToldAndUsedAsItIs(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	b := open(t, Options{Log: zap.New(core)})
	s, kind := server(), "drift"
	l := join(t, b, broker.Worker(s))
	err := l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(broker.MailboxQueue(s), true, false, false, false, amqp091.Table{"x-queue-type": Quorum})
		return errors.Join(err, ch.QueueBind(broker.MailboxQueue(s), string(s), broker.ExchangeUtils, false, nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	err = l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(broker.TasksQueue(kind, wire.Normal), true, false, false, false, amqp091.Table{"x-queue-type": Classic})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	store(t, l, broker.ToMailbox(s), "before")
	m := own(t, l, s, 1)
	expect(t, m, "before")
	tasks, err := l.OpenTasks(bounded(t), []string{kind}, 1)
	if err != nil {
		t.Fatal(err)
	}
	store(t, l, broker.ToTasks(kind, wire.Normal), "task")
	expect(t, tasks, "task")
	if n := logged.FilterMessageSnippet("other arguments").Len(); n != 2 {
		t.Errorf("told %d times, want once for each queue: %v", n, logged.All())
	}
}
