package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

const (
	perWorker      = 17_500 // connections: a worker may open 20,000 files
	millionIdle    = 20 * time.Second
	millionWithin  = 30 * time.Minute // to connect
	millionAtOnce  = 32               // connects under way in each process of clients that connects: the workers share the cores with them
	millionRounds  = 3                // broadcasts
	millionArrive  = 2 * time.Minute
	millionWarm    = 5 * time.Second
	millionChannel = "all"
	millionEcho    = 5_000 // pings a second at most: whether they are alive is asked, not how fast they are
	millionBeat    = "10m" // the most there is: answers would wait behind a broadcast in the clients' processes, which two cores keep for longer than PongTime
)

// runMillion holds clients on as many real workers as it takes, each with a session and a subscription, and broadcasts to all
// of them. It reports what a connection costs the workers in private memory, and checks every byte.
func runMillion(ctx context.Context, clients int, name string, stdout, stderr io.Writer) (err error) {
	l, err := lab.New("million", stderr)
	if err != nil {
		return err
	}
	defer l.Close()
	bin, err := l.Programs(ctx)
	if err != nil {
		return err
	}
	var ids []string
	for i := range (clients + perWorker - 1) / perWorker {
		ids = append(ids, "i1-w"+strconv.Itoa(i+1))
	}
	l.Logf("%v; %d workers", report.ThisMachine(), len(ids))
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: ids, WorkerSettings: []string{"WSCLUSTER_OPEN_CHANNELS=" + millionChannel, "WSCLUSTER_HEARTBEAT=" + millionBeat}})
	if err != nil {
		return err
	}
	defer l.Stop(c)
	if err := pause(ctx, millionWarm); err != nil {
		return err
	}
	before, err := residentOf(c)
	if err != nil {
		return err
	}

	begun, err := endingsOf(ctx, c)
	if err != nil {
		return err
	}

	progress := report.NewProgress(stderr)
	defer progress.End()
	spec := crowd.Spec{Clients: clients, Channel: millionChannel, AtOnce: millionAtOnce, Within: millionWithin,
		Command: []string{filepath.Join(bin, "wsctl"), "bench-clients"}, Opened: func(n int) { progress.Bar("connect", n, clients) }}
	for _, w := range c.Workers {
		spec.Addrs = append(spec.Addrs, w.Addr)
	}
	for _, ip := range load.Loopback(clients) {
		spec.Sources = append(spec.Sources, ip.String())
	}
	m, err := crowd.Join(spec)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	defer func() { // while the clients are still there
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endingsWithin)
		defer cancel()
		now, failed := endingsOf(ctx, c)
		progress.Note("connections ended: " + now.since(begun))
		err = errors.Join(err, failed)
	}()
	took, _, err := m.Connect(ctx)
	if err != nil {
		return err
	}
	progress.Note(fmt.Sprintf("%d clients with sessions and subscriptions in %.1f s", clients, took.Seconds()))
	if err := pause(ctx, millionIdle); err != nil {
		return err
	}
	after, err := residentOf(c)
	if err != nil {
		return err
	}
	values := map[string]float64{
		"connect_s": took.Seconds(), "connects_per_s": float64(clients) / took.Seconds(), "workers": float64(len(ids)),
		"bytes_per_client": float64(after-before) / float64(clients), "base_mb_per_worker": float64(before) / 1e6 / float64(len(ids)),
	}
	p, err := bare.DialPublisher(c.Rabbit.URL())
	if err != nil {
		return err
	}
	defer p.Close()
	var faults crowd.Faults
	var lasts []float64
	for n := range millionRounds {
		if err := m.Expect(ctx, 1); err != nil {
			return err
		}
		progress.Status(fmt.Sprintf("broadcast %d", n+1))
		began := crowd.Now()
		body := crowd.Message(crowd.Everybody, int64(n+1), began)
		if err := p.Publish(ctx, broker.ToChannel(millionChannel), false, amqp091.Publishing{ContentType: "application/json", Body: body}); err != nil {
			return err
		}
		t, err := m.Wait(ctx, millionArrive)
		if err != nil {
			return err
		}
		faults.Add(t.Faults)
		lasts = append(lasts, float64(t.Last-began)/1e6)
		progress.Note(fmt.Sprintf("broadcast %d: %d of %d clients have it, byte for byte, the last after %.0f ms", n+1, t.Got, clients, float64(t.Last-began)/1e6))
	}
	values["last_ms"] = report.Median(lasts)
	progress.Status("every client pings")
	t, err := m.Echo(ctx, clients, millionEcho)
	if err != nil {
		return err
	}
	faults.Add(t.Faults)
	values["alive"], values["echo_p99_ms"] = float64(t.Got), t.Quantile(99)

	r := report.Round{Scenario: "million", System: "wscluster", Number: 1, Clients: clients, Values: values, Faults: faults, Load: report.Load()}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := report.NewWriter(f)
	machine := report.ThisMachine()
	machine.Versions = versions(ctx, l)
	if err := errors.Join(lines.Write(report.Line{Run: &report.Run{Command: command(), Machine: machine, Load: report.Load()}}), lines.Write(report.Line{Round: &r})); err != nil {
		return err
	}
	progress.End()
	if err := report.Table(stdout, report.Summarize([]report.Round{r}, nil)); err != nil {
		return err
	}
	if faults != (crowd.Faults{}) {
		return fmt.Errorf("not every message came as it must: %+v", faults)
	}
	return nil
}

// residentOf is the private memory of all workers, in bytes.
func residentOf(c *rig.Cluster) (sum int64, err error) {
	for _, w := range c.Workers {
		n, err := report.Resident(w.PID())
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}
