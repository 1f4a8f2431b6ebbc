package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
)

// socketioFolder has the server and its packages, which npm installs.
const socketioFolder = "bench/peers/socketio"

// Socket.IO, one Node process, a room for each channel: published in the process itself, or by its emitter in
// another process through Redis.
var (
	socketioSystem      = system{"socket.io", func(ctx context.Context, l *lab.Lab) (server, error) { return startSocketio(ctx, l, false) }}
	socketioRedisSystem = system{"socket.io-redis", func(ctx context.Context, l *lab.Lab) (server, error) { return startSocketio(ctx, l, true) }}
)

type socketio struct {
	*process
	control string // host:port that takes lines of channel and body
	redis   *rig.Process
	emitter *rig.Process // of Redis; nil without
	inMu    sync.Mutex
	in      net.Conn // to control, guarded by inMu
}

func startSocketio(ctx context.Context, l *lab.Lab, redis bool) (_ server, err error) {
	node, err := installed("node", "nodejs")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Root, socketioFolder)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "socket.io")); err != nil {
		return nil, fmt.Errorf("%w: npm ci in %s", errMissing, socketioFolder)
	}
	addrs, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	s := &socketio{control: addrs[1], process: &process{addr: addrs[0]}}
	defer func() {
		if err != nil {
			s.stop()
		}
	}()
	args := []string{"server.mjs", portOf(addrs[0]), portOf(addrs[1])}
	if redis {
		program, err := installed("redis-server", "redis-server")
		if err != nil {
			return nil, err
		}
		s.redis, err = rig.Start(rig.Program{Path: program, Args: []string{"--bind", "127.0.0.1", "--port", portOf(addrs[2]), "--save", "", "--appendonly", "no"}, Dir: l.Dir})
		if err != nil {
			return nil, err
		}
		if err := s.redis.WaitPort(ctx, addrs[2]); err != nil {
			return nil, err
		}
		s.emitter, err = rig.Start(rig.Program{Path: node, Args: []string{"emitter.mjs", portOf(addrs[1]), portOf(addrs[2])}, Dir: dir})
		if err != nil {
			return nil, err
		}
		args = []string{"server.mjs", portOf(addrs[0]), "0", portOf(addrs[2])}
	}
	s.process.start = func() (*rig.Process, error) { return rig.Start(rig.Program{Path: node, Args: args, Dir: dir}) }
	return s, s.revive(ctx)
}

func (s *socketio) revive(ctx context.Context) (err error) {
	if err := s.process.revive(ctx); err != nil {
		return err
	}
	owner := s.Process
	if s.emitter != nil {
		owner = s.emitter
	}
	if err := owner.WaitPort(ctx, s.control); err != nil {
		return err
	}
	s.inMu.Lock()
	defer s.inMu.Unlock()
	if s.in != nil {
		s.in.Close()
	}
	s.in, err = net.Dial("tcp", s.control)
	return err
}

func (s *socketio) clients(n int, everybody bool) (load.Plan, crowd.Options, error) {
	return planAt(n, everybody, func(channel func(int) string) load.Target {
		return load.Target{Addr: s.addr, Path: "/socket.io/?EIO=4&transport=websocket", Greet: func(c *load.Socket, client int) error {
			if err := expect(c, "0{"); err != nil { // Engine.IO is open
				return err
			}
			if err := c.SendText([]byte("40")); err != nil {
				return err
			}
			if err := expect(c, "40{"); err != nil { // Socket.IO is connected
				return err
			}
			if err := c.SendText(fmt.Appendf(nil, `420["join","%s"]`, channel(client))); err != nil {
				return err
			}
			return expect(c, "430[") // the acknowledgement
		}}
	}), crowd.Options{Each: pong}, nil
}

// pong answers the pings of Engine.IO.
func pong(s *load.Socket, frame []byte) error {
	if string(frame) == "2" {
		return s.SendText([]byte("3"))
	}
	return nil
}

func (s *socketio) publish(_ context.Context, to int, _ int64, body []byte) error {
	s.inMu.Lock()
	defer s.inMu.Unlock()
	_, err := io.WriteString(s.in, strings.Join([]string{channelOf(to), " ", string(body), "\n"}, ""))
	return err
}

func (s *socketio) others() []int {
	if s.redis == nil {
		return nil
	}
	return []int{s.redis.PID(), s.emitter.PID()}
}

func (s *socketio) stop() {
	if s.in != nil {
		s.in.Close()
	}
	for _, p := range []*rig.Process{s.Process, s.emitter, s.redis} {
		if p != nil {
			p.Kill()
		}
	}
}
