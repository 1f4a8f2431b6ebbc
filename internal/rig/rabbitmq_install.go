package rig

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// install makes the node's folder: cookie, configuration, plugins, definitions and users. config is more
// lines for rabbitmq.conf.
func (r *RabbitMQ) install(config string, plugins []string) error {
	root, err := Root()
	if err != nil {
		return err
	}
	shipped := filepath.Join(root, "deploy", "rabbitmq")
	conf, err := os.ReadFile(filepath.Join(shipped, "rabbitmq.conf"))
	if err != nil {
		return err
	}
	definitions, err := os.ReadFile(filepath.Join(shipped, "definitions.json"))
	if err != nil {
		return err
	}
	users, err := os.ReadFile(filepath.Join(shipped, "users.json"))
	if err != nil {
		return err
	}
	if users, err = withPassword(users, r.secret); err != nil {
		return err
	}
	dir := func(name string) string { return filepath.Join(r.dir, name) }
	for _, d := range []string{"conf", "definitions", "mnesia", "log"} {
		if err := os.MkdirAll(dir(d), 0o700); err != nil {
			return err
		}
	}
	// Files are read by name, and the last word on a key counts.
	private := fmt.Sprintf("listeners.tcp.1 = %s\nlog.console = true\nlog.file = false\nload_definitions = %s\n%s\n", r.addr, dir("definitions"), config)
	for name, content := range map[string][]byte{
		".erlang.cookie":              []byte(r.secret),
		"enabled_plugins":             fmt.Appendf(nil, "[%s].\n", strings.Join(plugins, ",")),
		"conf/10-shipped.conf":        conf,
		"conf/20-private.conf":        []byte(private),
		"definitions/10-shipped.json": definitions,
		"definitions/20-users.json":   users,
	} {
		if err := os.WriteFile(dir(name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// choosePorts gives the node its addresses, its name and its environment.
func (r *RabbitMQ) choosePorts() error {
	var ports [3]string
	for i := range ports {
		addr, err := FreePort("127.0.0.1")
		if err != nil {
			return err
		}
		_, ports[i], _ = net.SplitHostPort(addr)
	}
	r.addr = net.JoinHostPort("127.0.0.1", ports[0])
	r.env = nodeEnv(r.dir, ports)
	r.name = r.get("RABBITMQ_NODENAME")
	return nil
}

// nodeEnv is the environment of the node and of rabbitmqctl. ports are those of AMQP, of the
// Erlang distribution and of the port mapper.
func nodeEnv(dir string, ports [3]string) []string {
	const loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
	env := map[string]string{
		"HOME":                                dir, // the cookie is here
		"PATH":                                os.Getenv("PATH"),
		"LANG":                                "C.UTF-8",
		"ERL_EPMD_PORT":                       ports[2],
		"ERL_EPMD_ADDRESS":                    "127.0.0.1",
		"RABBITMQ_NODENAME":                   "rig" + ports[0] + "@127.0.0.1", // an address needs no resolver
		"RABBITMQ_USE_LONGNAME":               "true",                          // only a long name may have dots
		"RABBITMQ_NODE_PORT":                  ports[0],
		"RABBITMQ_DIST_PORT":                  ports[1],
		"RABBITMQ_CONF_ENV_FILE":              "/dev/null",
		"RABBITMQ_CONFIG_FILES":               filepath.Join(dir, "conf", "*.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE":       filepath.Join(dir, "enabled_plugins"),
		"RABBITMQ_MNESIA_BASE":                filepath.Join(dir, "mnesia"),
		"RABBITMQ_LOG_BASE":                   filepath.Join(dir, "log"),
		"RABBITMQ_PID_FILE":                   filepath.Join(dir, "pid"),
		"RABBITMQ_CTL_ERL_ARGS":               loopback,
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
		// The port mapper is ours: one that an Erlang machine starts would outlive all of us.
		"ERL_ZFLAGS": "-start_epmd false",
		// Has the script become the Erlang machine instead of waiting for it: what we start is
		// what we kill.
		"RUNNING_UNDER_SYSTEMD": "true",
	}
	var list []string
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	return list
}

// withPassword gives every user of a definitions file the same password.
func withPassword(definitions []byte, password string) ([]byte, error) {
	var file map[string]any
	if err := json.Unmarshal(definitions, &file); err != nil {
		return nil, err
	}
	users, ok := file["users"].([]any)
	if !ok {
		return nil, fmt.Errorf("users.json holds no users")
	}
	for _, u := range users {
		u.(map[string]any)["password_hash"] = passwordHash(password)
	}
	return json.Marshal(file)
}

// passwordHash is RabbitMQ's rabbit_password_hashing_sha256: a salt of four bytes, then the hash.
func passwordHash(password string) string {
	salt := strings.Repeat("s", 4)
	sum := sha256.Sum256([]byte(salt + password))
	return base64.StdEncoding.EncodeToString(append([]byte(salt), sum[:]...))
}
