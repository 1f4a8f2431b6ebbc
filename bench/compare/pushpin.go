package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
)

// pushpinInternal is Debian's; it names a zurl that serves the whole machine.
const pushpinInternal = "/usr/lib/pushpin/internal.conf"

// pushpinSystem is Pushpin with a zurl of its own, published by HTTP: no broker. The backend that it asks when a client
// connects is in this process.
var pushpinSystem = system{"pushpin", func(ctx context.Context, l *lab.Lab) (_ server, err error) {
	programs := map[string]string{}
	for _, name := range []string{"condure", "pushpin-proxy", "pushpin-handler", "zurl"} {
		if programs[name], err = installed(name, "pushpin"); err != nil {
			return nil, err
		}
	}
	addrs, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Dir, "pushpin")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	internal, err := os.ReadFile(pushpinInternal)
	if err != nil {
		return nil, fmt.Errorf("%w: Debian's package pushpin, with %s", errMissing, pushpinInternal)
	}
	p := &pushpin{addr: addrs[0], control: addrs[1]}
	if p.backend, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.stop()
		}
	}()
	go http.Serve(p.backend, http.HandlerFunc(websocketEvents)) //nolint:errcheck // it ends with its listener
	for name, text := range map[string][]byte{
		"internal.conf": bytes.ReplaceAll(internal, []byte("/var/run/zurl/"), []byte(dir+"/")),
		"zurl.conf":     fmt.Appendf(nil, zurlConfig, dir),
		"routes":        fmt.Appendf(nil, "* %s,over_http\n", p.backend.Addr()),
		"pushpin.conf":  fmt.Appendf(nil, pushpinConfig, dir, portOf(addrs[1]), addrs[2], addrs[3], addrs[4]),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	if p.zurl, err = rig.Start(rig.Program{Path: programs["zurl"], Args: []string{"--config=" + filepath.Join(dir, "zurl.conf")}, Dir: dir}); err != nil {
		return nil, err
	}
	// What Debian's pushpin starts, without itself: it gives each a session of its own, and they outlive it.
	config := []string{"--config=" + filepath.Join(dir, "pushpin.conf"), "--ipc-prefix=pushpin-", "--loglevel=1"}
	p.programs = []rig.Program{
		{Path: programs["condure"], Dir: dir, Args: []string{"--log-level=1", "--listen=" + p.addr + ",stream",
			"--zclient-stream=ipc://" + dir + "/pushpin-condure", "--buffer-size=8192", "--stream-maxconn=16000"}},
		{Path: programs["pushpin-proxy"], Dir: dir, Args: config},
		{Path: programs["pushpin-handler"], Dir: dir, Args: config},
	}
	return p, p.revive(ctx)
}}

const zurlConfig = `[General]
in_spec=ipc://%[1]s/zurl-in
in_stream_spec=ipc://%[1]s/zurl-in-stream
out_spec=ipc://%[1]s/zurl-out
in_req_spec=ipc://%[1]s/zurl-req
defpolicy=allow
max_open_requests=2000
buffer_size=200000
timeout=600
in_hwm=1000
out_hwm=1000
`

// pushpinConfig is Debian's but for folders and addresses, and for message_rate, which is 2,500 a second there.
const pushpinConfig = `[global]
include=%[1]s/internal.conf
rundir=%[1]s
ipc_prefix=pushpin-
port_offset=0
stats_connection_ttl=120

[proxy]
routesfile=%[1]s/routes
sig_iss=pushpin
sig_key=bench
updates_check=off

[handler]
push_in_spec=tcp://%[3]s
push_in_sub_specs=tcp://%[4]s
push_in_sub_connect=false
push_in_http_addr=127.0.0.1
push_in_http_port=%[2]s
stats_spec=ipc://{rundir}/{ipc_prefix}stats
command_spec=tcp://%[5]s
message_rate=1000000
message_hwm=1000000
message_wait=5000
id_cache_ttl=60
connection_subscription_max=20
subscription_linger=60
stats_subscription_ttl=60
stats_report_interval=10
stats_format=tnetstring
`

type pushpin struct {
	addr, control string // host:port that take clients and publishes
	backend       net.Listener
	zurl          *rig.Process
	programs      []rig.Program
	running       []*rig.Process // of programs
}

// websocketEvents is the backend: it subscribes a client that opens, and says that it is ready.
func websocketEvents(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/websocket-events")
	w.Header().Set("Sec-WebSocket-Extensions", `grip; message-prefix=""`)
	events, err := io.ReadAll(r.Body)
	if err != nil || !bytes.HasPrefix(events, []byte("OPEN")) {
		return
	}
	subscribe := fmt.Sprintf(`c:{"type":"subscribe","channel":"%s"}`, r.URL.Query().Get("id"))
	fmt.Fprintf(w, "OPEN\r\nTEXT %x\r\n%s\r\nTEXT 5\r\nready\r\n", len(subscribe), subscribe)
}

func (p *pushpin) clients(n int, everybody bool) (load.Plan, crowd.Options, error) {
	plan := load.Plan{Clients: n, Sources: load.Loopback(n)}
	for i := range n {
		plan.Targets = append(plan.Targets, load.Target{Addr: p.addr, Path: "/sub?id=" + subscription(i, everybody),
			Greet: func(s *load.Socket, _ int) error { return expect(s, "ready") }})
	}
	return plan, crowd.Options{}, nil
}

func (p *pushpin) publish(ctx context.Context, to int, _ int64, body []byte) error {
	content, err := json.Marshal(string(body))
	if err != nil {
		return err
	}
	item := fmt.Appendf(nil, `{"items":[{"channel":"%s","formats":{"ws-message":{"content":%s}}}]}`, channelOf(to), content)
	return post(ctx, "http://"+p.control+"/publish/", item)
}

func (p *pushpin) kill() {
	for _, process := range p.running {
		process.Kill()
	}
	p.running = nil
}

func (p *pushpin) revive(ctx context.Context) error {
	for _, program := range p.programs {
		process, err := rig.Start(program)
		if err != nil {
			return err
		}
		p.running = append(p.running, process)
	}
	for i, addr := range map[int]string{0: p.addr, 2: p.control} {
		if err := p.running[i].WaitPort(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

func (p *pushpin) holders() (all []int) {
	for _, process := range p.running {
		all = append(all, process.PID())
	}
	return all
}

func (p *pushpin) others() []int { return []int{p.zurl.PID()} }

func (p *pushpin) stop() {
	p.kill()
	p.backend.Close()
	if p.zurl != nil {
		p.zurl.Kill()
	}
}
