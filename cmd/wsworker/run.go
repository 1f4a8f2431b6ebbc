package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/web"
)

// settings are the keys of wsworker run.
type settings struct {
	config.Logging

	ServerID       socketmeta.ServerID `config:"server_id,required" usage:"name of this worker, <instance>-<worker>, the same after a restart"`
	Listen         string              `config:"listen" usage:"address for clients, behind HAProxy: host:port, or unix:/path of a socket"`
	ProxyProtocol  bool                `config:"proxy_protocol" usage:"each connection for clients begins with a header of the PROXY protocol, version 2, and is closed without one"`
	InternalListen string              `config:"internal_listen" usage:"address for /metrics and profiles; empty for none"`
	AMQPURL        []string            `config:"amqp_url,secret,required" usage:"RabbitMQ nodes, tried in turn"`
	MailboxType    string              `config:"mailbox_type" usage:"classic, or quorum in a cluster; the same on every worker"`
	MetaKeys       []string            `config:"meta_keys,secret,required" usage:"keys that sign resume tickets, '<kid> <secret>' each; the same on every worker"`
	RouteKey       []string            `config:"route_key,secret,required" usage:"keys that sign route tickets, shared with HAProxy"`
	GrantKeys      []string            `config:"grant_keys,secret" usage:"keys of grants, '<kid> <secret>' each, with which backends allow to subscribe, publish and ask; none: only open channels, no publishing over HTTP, no questions to clients"`
	OpenChannels   []string            `config:"open_channels" usage:"channels that anybody may subscribe to: names, or beginnings with * behind"`
	Origins        []string            `config:"origins" usage:"web origins whose pages may connect; none means only pages of this host"`
	Heartbeat      time.Duration       `config:"heartbeat" usage:"a client that is silent for so long is pinged; shorter than what HAProxy and other proxies wait"`
	ResumeWindow   time.Duration       `config:"resume_window" usage:"how long an absent client may come back"`
	BrokerGrace    time.Duration       `config:"broker_grace" usage:"how long the broker may be away before clients are told"`
	DrainWindow    time.Duration       `config:"drain_window" usage:"over how long a stopping worker spreads its clients' return"`
	RefreshAfter   time.Duration       `config:"refresh_after" usage:"an event that waits for so long is published again, so that no delivery gets as old as the broker's consumer_timeout"`
	MoveClients    bool                `config:"move_clients" usage:"send clients to other workers, over the drain window, when the broker is away for longer than the grace"`
	MaxHeld        int                 `config:"max_held" usage:"events that may wait for their clients"`
	MaxHeldBytes   int                 `config:"max_held_bytes" usage:"bytes of the events that may wait for their clients"`
	Console        bool                `config:"console" usage:"serve the console page on /"`

	keys, routeKeys socketmeta.Keys // set by Validate
	origins         auth.Origins
	grants          auth.Grants
}

// Validate reads the values that have a form of their own, and says all that is wrong.
func (s *settings) Validate() error {
	var errs []error
	check := func(key string, err error) {
		if err != nil {
			errs = append(errs, config.Invalid(key, "%v", err))
		}
	}
	var err error
	s.keys, err = socketmeta.ParseKeys([]byte(strings.Join(s.MetaKeys, "\n")))
	check("meta_keys", err)
	s.routeKeys, err = socketmeta.ParseKeys([]byte(strings.Join(s.RouteKey, "\n")))
	check("route_key", err)
	s.origins, err = auth.ParseOrigins(s.Origins)
	check("origins", err)
	var grantKeys socketmeta.Keys
	if len(s.GrantKeys) > 0 {
		grantKeys, err = socketmeta.ParseKeys([]byte(strings.Join(s.GrantKeys, "\n")))
		check("grant_keys", err)
	}
	s.grants, err = auth.NewGrants(grantKeys, s.OpenChannels)
	check("open_channels", err)
	if s.MailboxType != amqp.Classic && s.MailboxType != amqp.Quorum {
		check("mailbox_type", fmt.Errorf("%q must be %s or %s", s.MailboxType, amqp.Classic, amqp.Quorum))
	} else {
		_, err = amqp.New(amqp.Options{URLs: s.AMQPURL})
		check("amqp_url", err)
	}
	for key, value := range map[string]time.Duration{"resume_window": s.ResumeWindow, "broker_grace": s.BrokerGrace, "drain_window": s.DrainWindow, "refresh_after": s.RefreshAfter} {
		if value <= 0 {
			check(key, fmt.Errorf("%v must be longer than nothing, as in 30s", value))
		}
	}
	if s.Heartbeat < minHeartbeat || s.Heartbeat > maxHeartbeat {
		check("heartbeat", fmt.Errorf("%v must be %v to %v", s.Heartbeat, minHeartbeat, maxHeartbeat))
	}
	if s.MaxHeld < 1 || s.MaxHeld > maxPrefetch {
		check("max_held", fmt.Errorf("%d must be 1 to %d, for it is the broker's prefetch", s.MaxHeld, maxPrefetch))
	}
	if s.MaxHeldBytes < minHeldBytes {
		check("max_held_bytes", fmt.Errorf("%d must be %d or more", s.MaxHeldBytes, minHeldBytes))
	}
	if path, ok := strings.CutPrefix(s.Listen, unixPrefix); ok && !filepath.IsAbs(path) {
		check("listen", fmt.Errorf("%q must name the socket by its whole path, as in unix:/run/wscluster/i1-w1.sock", s.Listen))
	}
	_, err = s.NewLogger(io.Discard)
	return errors.Join(append(errs, err)...)
}

const (
	maxPrefetch  = 65_535  // AMQP counts it in 16 bits
	minHeldBytes = 1 << 20 // room for a few events of the largest size
	minHeartbeat = time.Second
	maxHeartbeat = 10 * time.Minute // a peer that is gone is found no later
)

func defaults() settings {
	return settings{
		Logging: config.DefaultLogging(), Listen: ":9001", InternalListen: "127.0.0.1:9101", MailboxType: "classic",
		Heartbeat: 15 * time.Second, ResumeWindow: 10 * time.Minute, BrokerGrace: 30 * time.Second, DrainWindow: 30 * time.Second,
		OpenChannels: []string{"workflow.*", "workflows", "engine"}, RefreshAfter: 5 * time.Minute, MaxHeld: 20_000, MaxHeldBytes: 256 << 20, Console: true,
	}
}

func runCommand() *cobra.Command {
	s := defaults()
	c := &cobra.Command{
		Use:   "run",
		Short: "Run one worker against RabbitMQ",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := config.Load(&s, c.Flags(), os.Environ()); err != nil {
				return err
			}
			return run(c.Context(), &s, c.ErrOrStderr())
		},
	}
	config.Flags(c.Flags(), &s)
	return c
}

// run serves until ctx ends.
func run(ctx context.Context, s *settings, stderr io.Writer) error {
	log, err := s.NewLogger(stderr)
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	rabbit, err := amqp.New(amqp.Options{URLs: s.AMQPURL, MailboxType: s.MailboxType, Log: log})
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	o := worker.Options{
		Server: s.ServerID, Broker: rabbit, Keys: s.keys, RouteKeys: s.routeKeys, Origins: s.origins, Grants: s.grants, Log: log,
		ResumeWindow: s.ResumeWindow, DrainWindow: s.DrainWindow, BrokerGrace: s.BrokerGrace, MoveClients: s.MoveClients,
		RefreshAfter: s.RefreshAfter, MaxHeld: s.MaxHeld, MaxHeldBytes: s.MaxHeldBytes,
		Engine: engine.Options{ProxyProtocol: s.ProxyProtocol, PingEvery: s.Heartbeat},
	}
	if s.Console {
		o.Site = web.Handler()
	}
	w, err := worker.New(o)
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	traffic, err := listen(ctx, s.Listen)
	if err != nil {
		return config.WithExit(config.ExitConfig, fmt.Errorf("listen: %w", err))
	}
	var internal net.Listener
	if s.InternalListen != "" {
		if internal, err = net.Listen("tcp", s.InternalListen); err != nil {
			traffic.Close()
			return config.WithExit(config.ExitConfig, fmt.Errorf("internal_listen: %w", err))
		}
		log.Info("operators are served", zap.Stringer("address", internal.Addr()))
	}
	log.Info("clients are served", zap.String("server_id", string(s.ServerID)), zap.Stringer("address", traffic.Addr()))
	return w.Run(ctx, traffic, internal)
}
