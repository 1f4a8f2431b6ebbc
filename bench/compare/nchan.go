package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
)

const nchanModule = "/usr/lib/nginx/modules/ngx_nchan_module.so"

// nchanSystem is nginx with nchan, its messages in shared memory, published by HTTP: no broker.
var nchanSystem = system{"nchan", func(ctx context.Context, l *lab.Lab) (server, error) {
	nginx, err := installed("nginx", "nginx")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(nchanModule); err != nil {
		return nil, fmt.Errorf("%w: Debian's package libnginx-mod-nchan", errMissing)
	}
	addr, err := rig.FreePort("127.0.0.1")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(l.Dir, "nchan")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, nchanConfig, nchanModule, dir, addr), 0o600); err != nil {
		return nil, err
	}
	p := &process{addr: addr, start: func() (*rig.Process, error) {
		return rig.Start(rig.Program{Path: nginx, Args: []string{"-p", dir, "-c", config}, Dir: dir})
	}}
	return &nchan{process: p}, p.revive(ctx)
}}

// nchanConfig runs two nginx processes; %[1]s is the module, %[2]s a folder, %[3]s the address.
const nchanConfig = `load_module %[1]s;
daemon off;
user root;
pid %[2]s/pid;
error_log %[2]s/error.log;
worker_processes 2;
worker_rlimit_nofile 20000;
events { worker_connections 19000; }
http {
  access_log off;
  keepalive_requests 10000000;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi; uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  nchan_shared_memory_size 512m;
  server {
    listen %[3]s backlog=4096;
    location = /sub { nchan_subscriber websocket; nchan_channel_id $arg_id; nchan_subscriber_first_message newest; }
    location = /pub { nchan_publisher http; nchan_channel_id $arg_id; nchan_message_buffer_length 100; nchan_message_timeout 1m; }
  }
}
`

type nchan struct{ *process }

func (n *nchan) clients(count int, everybody bool) (load.Plan, crowd.Options, error) {
	plan := load.Plan{Clients: count, Sources: load.Loopback(count)}
	for i := range count {
		plan.Targets = append(plan.Targets, load.Target{Addr: n.addr, Path: "/sub?id=" + subscription(i, everybody)})
	}
	return plan, crowd.Options{}, nil
}

func (n *nchan) publish(ctx context.Context, to int, _ int64, body []byte) error {
	return post(ctx, "http://"+n.addr+"/pub?id="+channelOf(to), body)
}

// publisherClient keeps a connection for each goroutine that publishes.
var publisherClient = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: publishers}}

func post(ctx context.Context, url string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	answer, err := publisherClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode/100 != 2 {
		return fmt.Errorf("publish: %s: %.200s (%v)", answer.Status, text, err)
	}
	return nil
}
