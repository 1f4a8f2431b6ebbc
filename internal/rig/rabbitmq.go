package rig

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// rabbitBin is where Debian keeps RabbitMQ's scripts. The ones in /usr/sbin give themselves to the
// user rabbitmq when root calls them, and that user cannot read private folders.
const rabbitBin = "/usr/lib/rabbitmq/bin"

const (
	evalTries = 3 // to reach a node
	evalPause = 300 * time.Millisecond
)

// rabbitStart bounds the time from the start of a node to its first answer.
const rabbitStart = 3 * time.Minute

// RabbitOptions say what a private RabbitMQ runs with. The zero value is a node with what
// deploy/rabbitmq ships.
type RabbitOptions struct {
	Dir    string    // an empty folder for its data; "" makes one that Stop removes
	Config string    // more lines for rabbitmq.conf, after those of deploy/rabbitmq
	Log    io.Writer // gets what the node writes; nil keeps only the tail, for errors

	Plugins []string // to enable; Config is to keep their listeners on loopback
}

// RabbitMQ is one private node, with its own name, data, users and Erlang port mapper, listening
// on 127.0.0.1 only. Its users are the shipped ones: worker, runner and operator. Its methods may
// be called from any goroutine, those that start or end it one at a time.
type RabbitMQ struct {
	dir    string
	ownDir bool
	log    io.Writer
	env    []string
	addr   string // of the AMQP listener
	name   string // of the node, as Erlang knows it
	secret string // every user's password, and the Erlang cookie
	epmd   *Process
	node   *Process
}

// StartRabbitMQ returns once the node speaks AMQP: after some 4 s, 3 of which it computes. An
// error shows what it wrote, and leaves nothing behind. ctx bounds the start only.
func StartRabbitMQ(ctx context.Context, o RabbitOptions) (_ *RabbitMQ, err error) {
	r := &RabbitMQ{dir: o.Dir, log: o.Log, secret: rand.Text()}
	if r.dir == "" {
		if r.dir, err = os.MkdirTemp("", "rabbitmq-"); err != nil {
			return nil, fmt.Errorf("start rabbitmq: %w", err)
		}
		r.ownDir = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Stop())
		}
	}()
	if err := r.choosePorts(); err != nil {
		return nil, fmt.Errorf("start rabbitmq: %w", err)
	}
	if err := r.install(o.Config, o.Plugins); err != nil {
		return nil, fmt.Errorf("start rabbitmq: %w", err)
	}
	return r, r.Restart(ctx)
}

// Restart starts the node, killing it before if it runs, on the data that it has.
func (r *RabbitMQ) Restart(ctx context.Context) (err error) {
	defer func() {
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w (Debian's package rabbitmq-server is needed: make deps installs it)", err)
		}
	}()
	r.Kill()
	ctx, cancel := context.WithTimeout(ctx, rabbitStart)
	defer cancel()
	if err := r.startMapper(ctx); err != nil {
		return fmt.Errorf("start rabbitmq: %w", err)
	}
	r.node, err = Start(Program{Path: filepath.Join(rabbitBin, "rabbitmq-server"), Env: r.env, Dir: r.dir, Log: r.log})
	if err != nil {
		return fmt.Errorf("start rabbitmq: %w", err)
	}
	return r.node.WaitReady(ctx, func() error { return speaksAMQP(r.addr) })
}

// startMapper starts the node's own port mapper unless it runs, in the foreground: the one that a
// node starts would outlive it.
func (r *RabbitMQ) startMapper(ctx context.Context) (err error) {
	if r.epmd != nil {
		return nil
	}
	r.epmd, err = Start(Program{Path: "epmd", Args: []string{"-port", r.get("ERL_EPMD_PORT"), "-address", "127.0.0.1"}, Env: r.env})
	if err != nil {
		return err
	}
	return r.epmd.WaitPort(ctx, r.mapper())
}

// mapper and dist are host:port of the port mapper and of the Erlang distribution.
func (r *RabbitMQ) mapper() string { return net.JoinHostPort("127.0.0.1", r.get("ERL_EPMD_PORT")) }
func (r *RabbitMQ) dist() string   { return net.JoinHostPort("127.0.0.1", r.get("RABBITMQ_DIST_PORT")) }

// speaksAMQP reports why addr does not answer a protocol header (AMQP 0-9-1, section 4.2.2).
func speaksAMQP(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte("AMQP\x00\x00\x09\x01")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// URL is where the user operator, who may do everything, reaches the node.
func (r *RabbitMQ) URL() string { return r.URLFor("operator") }

// URLFor is URL for another user of deploy/rabbitmq/users.json: worker or runner, whose rights
// are those of the file.
func (r *RabbitMQ) URLFor(user string) string { return r.urlAt(user, r.addr) }

// urlAt is URLFor by way of another address.
func (r *RabbitMQ) urlAt(user, addr string) string {
	u := url.URL{Scheme: "amqp", User: url.UserPassword(user, r.secret), Host: addr, Path: "/"}
	return u.String()
}

// Node is the node's process: the Erlang machine itself. It is another one after Restart.
func (r *RabbitMQ) Node() *Process { return r.node }

// Ctl runs rabbitmqctl on the node and returns what it printed. It takes a second on an idle
// machine: Eval is a hundred times as fast.
func (r *RabbitMQ) Ctl(ctx context.Context, args ...string) (string, error) {
	return r.tool(ctx, Program{Path: filepath.Join(rabbitBin, "rabbitmqctl"), Args: append([]string{"-q"}, args...)})
}

// Eval runs Erlang expressions, separated by commas, on the node and returns what they print with
// io:format. It fails if one of them does: match what must be, as in "ok = f()".
func (r *RabbitMQ) Eval(ctx context.Context, expressions string) (string, error) {
	const success = "{ok, rig_ok}" // erl_call prints the last value, or an error; its exit code is 0 either way
	var out string
	for tries := 1; ; tries++ {
		var err error
		out, err = r.tool(ctx, Program{
			Path: "erl_call",
			Args: []string{"-address", r.dist(), "-fetch_stdout", "-e"},
			In:   strings.NewReader("begin " + expressions + " end, rig_ok.\n"),
		})
		if err == nil {
			break
		}
		// A node that has much to do may be too slow for erl_call's handshake. Nothing was done then.
		if tries == evalTries || !strings.Contains(err.Error(), "failed to connect to node") {
			return "", err
		}
		select {
		case <-time.After(evalPause):
		case <-ctx.Done():
			return "", err
		}
	}
	printed, ok := strings.CutSuffix(out, success)
	if !ok {
		return "", fmt.Errorf("erlang %s: %s", expressions, strings.TrimSpace(out))
	}
	return printed, nil
}

// tool runs a program on the node's behalf and returns what it printed.
func (r *RabbitMQ) tool(ctx context.Context, p Program) (string, error) {
	var out bytes.Buffer
	p.Env, p.Dir, p.Log = r.env, r.dir, &out
	proc, err := Start(p)
	if err != nil {
		return "", err
	}
	select {
	case <-proc.Done():
	case <-ctx.Done():
		proc.Kill()
		return "", fmt.Errorf("%s: %w", proc.name, context.Cause(ctx))
	}
	if code := proc.ExitCode(); code != 0 {
		return "", fmt.Errorf("%s %s: exit code %d: %s", proc.name, strings.Join(p.Args, " "), code, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Sync has the node write down which quorum queues it has. RabbitMQ 3.10 does that by itself only
// after some four seconds, and a queue that is younger than that when its node is killed has no
// leader ever after (ra_directory's dets file: delayed write 3 s, auto save 0.5 s).
func (r *RabbitMQ) Sync(ctx context.Context) error {
	_, err := r.Eval(ctx, "[ok = dets:sync(T) || T <- dets:all()]")
	return err
}

// Kill ends the node with SIGKILL, as a fault would; see Sync. Restart brings it back.
func (r *RabbitMQ) Kill() {
	if r.node != nil {
		r.node.Kill()
	}
}

// Stop ends the node and its port mapper, and removes its data if the folder was its own. It does
// not give the node time: what it has confirmed is on disk. Stopping it twice does nothing more.
func (r *RabbitMQ) Stop() error {
	r.Kill()
	if r.epmd != nil {
		r.epmd.Kill()
	}
	if !r.ownDir {
		return nil
	}
	return os.RemoveAll(r.dir)
}

func (r *RabbitMQ) get(key string) string {
	for _, e := range r.env {
		if value, ok := strings.CutPrefix(e, key+"="); ok {
			return value
		}
	}
	return ""
}
