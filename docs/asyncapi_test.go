package docs_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// asyncapi is docs/asyncapi.yaml as far as this package looks at it.
type asyncapi struct {
	AsyncAPI string `yaml:"asyncapi"`
	Channels map[string]struct {
		Messages map[string]reference
		Bindings struct {
			AMQP struct {
				Is       string
				Exchange struct {
					Name, Type string
					Durable    bool
				}
				Queue    struct{ Name string }
				Internal bool `yaml:"x-internal"`
			}
		}
	}
	Operations map[string]struct {
		Action   string
		Channel  reference
		Messages []reference
	}
	Components struct{ Messages map[string]any }
}

type reference struct {
	Ref string `yaml:"$ref"`
}

func readAsyncAPI(t *testing.T, into any) {
	t.Helper()
	text, err := os.ReadFile("asyncapi.yaml")
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestAsyncAPINamesWhatExists: each reference leads somewhere, in this file and in schemas/, and nothing is
// described that nobody refers to.
func TestAsyncAPINamesWhatExists(t *testing.T) {
	used := map[string]bool{}
	var api any
	readAsyncAPI(t, &api)
	follow(t, "asyncapi.yaml", api, used)
	files, err := filepath.Glob("schemas/*/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 30 {
		t.Errorf("only %d schemas were found", len(files))
	}
	var common struct {
		Defs map[string]any `json:"$defs"`
	}
	read(t, "schemas/common.json", &common)
	for name := range common.Defs {
		files = append(files, "schemas/common.json#/$defs/"+name)
	}
	for _, f := range files {
		if !used[f] {
			t.Errorf("docs/%s is named by no message of asyncapi.yaml", f)
		}
	}
	var typed asyncapi
	readAsyncAPI(t, &typed)
	for name := range typed.Components.Messages {
		if !used["asyncapi.yaml#/components/messages/"+name] {
			t.Errorf("message %s is in no channel", name)
		}
	}
	said := map[string]bool{}
	for name, o := range typed.Operations {
		if o.Action != "send" && o.Action != "receive" || o.Channel.Ref == "" || len(o.Messages) == 0 {
			t.Errorf("operation %s: %+v", name, o)
		}
		for _, m := range o.Messages {
			if !strings.HasPrefix(m.Ref, o.Channel.Ref+"/messages/") {
				t.Errorf("operation %s: %s is no message of its channel", name, m.Ref)
			}
			said[m.Ref[strings.LastIndexByte(m.Ref, '/')+1:]] = true
		}
	}
	for name := range typed.Components.Messages {
		if !said[name] {
			t.Errorf("message %s is in no operation", name)
		}
	}
	if typed.AsyncAPI != "3.0.0" {
		t.Errorf("version %q", typed.AsyncAPI)
	}
}

// follow resolves all references in v, which stands in file, and those in what they lead to.
func follow(t *testing.T, file string, v any, used map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			path, pointer, _ := strings.Cut(ref, "#")
			to := file
			if path != "" {
				to = filepath.Join(filepath.Dir(file), path)
			}
			at := to
			if pointer != "" {
				at += "#" + pointer
			}
			if !used[at] {
				used[at] = true
				var doc any
				if to == "asyncapi.yaml" {
					readAsyncAPI(t, &doc)
				} else {
					read(t, to, &doc)
				}
				for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
					if name != "" {
						object, _ := doc.(map[string]any)
						doc = object[name]
					}
				}
				if doc == nil {
					t.Errorf("%s: %s leads nowhere", file, ref)
				}
				follow(t, to, doc, used)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(v)) {
			follow(t, file, v[name], used)
		}
	case []any:
		for _, e := range v {
			follow(t, file, e, used)
		}
	}
}

func read(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	if err != nil {
		t.Errorf("%s: %v", file, err)
	}
}

// TestAsyncAPIHasTheExchangesAndQueuesOfTheBroker compares it with the names in pkg/broker and with what an
// operator imports.
func TestAsyncAPIHasTheExchangesAndQueuesOfTheBroker(t *testing.T) {
	var api asyncapi
	readAsyncAPI(t, &api)
	exchanges, queues := map[string]string{}, map[string]bool{}
	for name, c := range api.Channels {
		b := c.Bindings.AMQP
		switch b.Is {
		case "routingKey":
			exchanges[b.Exchange.Name] = fmt.Sprintf("%s durable %t internal %t", b.Exchange.Type, b.Exchange.Durable, b.Internal)
		case "queue":
			queues[b.Queue.Name] = true
		case "":
			if name != "socket" {
				t.Errorf("channel %s has no AMQP binding", name)
			}
		}
	}
	var definitions struct {
		Exchanges []struct {
			Name, Type        string
			Durable, Internal bool
		}
	}
	read(t, "../deploy/rabbitmq/definitions.json", &definitions)
	want := map[string]string{}
	for _, e := range definitions.Exchanges {
		want[e.Name] = fmt.Sprintf("%s durable %t internal %t", e.Type, e.Durable, e.Internal)
	}
	if !maps.Equal(exchanges, want) {
		t.Errorf("exchanges in asyncapi.yaml:\n%v\nin deploy/rabbitmq:\n%v", exchanges, want)
	}
	for _, c := range consts(t, "../pkg/broker/names.go") {
		for _, prefix := range []string{"Queue", "Stream"} {
			if strings.HasPrefix(c.name, prefix) && !queues[c.value] {
				t.Errorf("the queue %s (%s) is not in asyncapi.yaml", c.value, c.name)
			}
		}
		if strings.HasPrefix(c.name, "Exchange") && exchanges[c.value] == "" {
			t.Errorf("the exchange %s (%s) is not in asyncapi.yaml", c.value, c.name)
		}
	}
	for _, name := range []string{broker.MailboxQueue("{server_id}"), broker.HoldQueue("{server_id}"), broker.ChannelsQueue("{server_id}"), broker.TasksQueue("{kind}", wire.Normal), broker.TasksQueue("{kind}", wire.High), broker.Worker("{key}").ControlQueue()} {
		if !queues[name] {
			t.Errorf("the queue %s is not in asyncapi.yaml", name)
		}
	}
}
