package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

const schemas = "../../docs/schemas"

var compiled sync.Map // schemas by name

// schema compiles a file of docs/schemas by its name, as "client/hello", once.
func schema(t interface {
	Helper()
	Fatalf(string, ...any)
}, name string) *jsonschema.Schema {
	t.Helper()
	if s, ok := compiled.Load(name); ok {
		return s.(*jsonschema.Schema)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(schemas + "/" + name + ".json")
	if err != nil {
		t.Fatalf("docs/schemas/%s.json: %v", name, err)
	}
	compiled.Store(name, s)
	return s
}

// fits says what a schema has against a message.
func fits(s *jsonschema.Schema, p []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(p))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// described is one message of the golden tables, and what this package and docs/schemas say of it.
type described struct {
	golden string
	schema string // the name of the file
	bytes  []byte
	typ    reflect.Type
	more   []string           // fields that the codec adds to those of typ
	decode func([]byte) error // nil if this package does not read it
}

// everyMessage lists the golden messages by name, the bodies of events too.
func everyMessage() (all []described) {
	client := func(p []byte) error {
		if _, refused := DecodeClient(p); refused != nil {
			return &refused.Error
		}
		return nil
	}
	server := func(p []byte) error { _, err := DecodeServer(p); return err }
	for name, m := range goldenFromClient {
		p := EncodeClient(m)
		all = append(all, described{name, "client/" + typeOf(p), p, reflect.TypeOf(m).Elem(), []string{"type"}, client})
	}
	for name, m := range goldenFromServer {
		p := EncodeServer(m)
		d := described{name, "server/" + typeOf(p), p, reflect.TypeOf(m).Elem(), []string{"type"}, server}
		if e, ok := m.(*Event); ok {
			d.typ = nil // its fields are Go's own: AppendEventFrame names them
			body := goldenBodies[e.Type]
			all = append(all, described{name + "'s body", "event/" + string(e.Type), e.Body, reflect.TypeOf(body).Elem(), []string{headerClient}, nil})
		}
		all = append(all, d)
	}
	for name, m := range goldenControl {
		typ := m.ControlType()
		all = append(all, described{name, "control/" + typ, EncodeControl(m), reflect.TypeOf(m).Elem(), nil,
			func(p []byte) error { _, err := DecodeControl(typ, p); return err }})
	}
	for name, r := range goldenLedger {
		all = append(all, described{name, "ledger/" + string(r.Op), must(EncodeLedger(r)), nil, nil,
			func(p []byte) error { _, err := DecodeLedger(p); return err }})
	}
	all = append(all, described{"task", "broker/task", must(EncodeTask(goldenTaskMessage)), reflect.TypeFor[Task](), nil,
		func(p []byte) error { _, err := DecodeTask(p); return err }})
	e := goldenEvent(5, 4, EventStep)
	e.Client, e.Epoch, e.Home = goldenMeta.Client, goldenMeta.Epoch, goldenMeta.Server
	all = append(all, described{"headers", "broker/headers", must(marshal(e.Headers())), nil, nil, decodeHeaders})
	all = append(all, described{"headers of a task", "broker/task_headers", []byte(`{"client_id":"` + goldenClient + `","server_id":"i1-w3"}`), nil, nil, decodeTaskHeaders})
	post := goldenPost()
	all = append(all, described{"headers of a post", "broker/post_headers", must(marshal(post.Headers())), nil, nil, decodePostHeaders})
	all = append(all, described{"workflow", "post/workflow", post.Body, reflect.TypeFor[Workflow](), nil, nil})
	all = append(all, described{"engine", "post/engine", must(marshal(goldenEngine)), reflect.TypeFor[Engine](), nil, nil})
	slices.SortFunc(all, func(a, b described) int { return strings.Compare(a.golden, b.golden) })
	return all
}

// readHeaders reads headers that are written as JSON.
func readHeaders(p []byte) (map[string]any, error) {
	var h map[string]any
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	if err := d.Decode(&h); err != nil {
		return nil, err
	}
	for name, v := range h {
		if n, ok := v.(json.Number); ok {
			h[name] = n.String() // a fraction is no AMQP integer
			if i, err := n.Int64(); err == nil {
				h[name] = i
			}
		}
	}
	return h, nil
}

// decodePostHeaders reads the headers of a post, written as JSON.
func decodePostHeaders(p []byte) error {
	h, err := readHeaders(p)
	if err == nil {
		_, err = DecodePost("news", "", h, []byte(`{}`), goldenTime.Time)
	}
	return err
}

// decodeHeaders reads headers that are written as JSON, of a step event or of a result.
func decodeHeaders(p []byte) error {
	h, err := readHeaders(p)
	if err != nil {
		return err
	}
	typ := "step"
	if h[headerLast] == true {
		typ = "result"
	}
	_, err = DecodeEvent(typ, "t", h, []byte(`{"client_id":"`+goldenClient+`"}`))
	return err
}

// decodeTaskHeaders reads the headers of a task, written as JSON, beside a body that says the same as they may.
func decodeTaskHeaders(p []byte) error {
	var h map[string]any
	if err := json.Unmarshal(p, &h); err != nil {
		return err
	}
	if _, ok := DecodeTaskAddress("t", h, []byte(`{"client_id":"`+goldenClient+`","server_id":"i1-w3","kind":7}`)); !ok {
		return errors.New("whose task it is cannot be read")
	}
	return nil
}

func typeOf(p []byte) string {
	var head struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(p, &head) // none is ""
	return head.Type
}

func TestEveryGoldenMessageFitsItsSchemaAndNoOther(t *testing.T) {
	all := everyMessage()
	for _, m := range all {
		if err := fits(schema(t, m.schema), m.bytes); err != nil {
			t.Errorf("%s: %v", m.golden, err)
		}
		for _, other := range all {
			sender, _, _ := strings.Cut(m.schema, "/")
			if (sender == "client" || sender == "server" || sender == "ledger") && other.schema != m.schema && strings.HasPrefix(other.schema, sender+"/") && fits(schema(t, other.schema), m.bytes) == nil {
				t.Errorf("%s fits the schema of %s too", m.golden, other.schema)
			}
		}
	}
	plain := schema(t, "broker/plain")
	for _, body := range []string{`{}`, `{"client_id":"` + goldenClient + `","task_id":"t1","type":"error","code":"failed"}`, `{"value":{"ok":true}}`} {
		if err := fits(plain, []byte(body)); err != nil {
			t.Errorf("plain event %s: %v", body, err)
		}
		if err := fits(schema(t, "broker/headers"), []byte(`{}`)); err != nil {
			t.Errorf("headers of a plain event: %v", err)
		}
	}
}

// decoders are the functions of this package that read a message, and the schemas of what they read:
// the folder in docs/schemas, and how the types are found in the source.
var decoders = map[string]struct {
	folder string
	types  func(*testing.T) []string
}{
	"DecodeClient":  {"client", func(t *testing.T) []string { return cases(t, "client_codec.go", "DecodeClient") }},
	"DecodeServer":  {"server", func(t *testing.T) []string { return cases(t, "server_codec.go", "DecodeServer") }},
	"DecodeControl": {"control", func(t *testing.T) []string { return cases(t, "control.go", "DecodeControl") }},
	"DecodeLedger":  {"ledger", func(t *testing.T) []string { return typed(t, "LedgerOp") }},
	"DecodeEvent":   {"event", func(t *testing.T) []string { return typed(t, "EventType") }},
	"DecodeBatch":   {"event", func(t *testing.T) []string { return typed(t, "EventType") }}, // beside its binary frame
	"DecodeEvents":  {"event", func(t *testing.T) []string { return typed(t, "EventType") }},
	"DecodeTask":    {"broker", inBroker},

	"DecodeTaskAddress": {"broker", inBroker},
	"DecodePost":        {"broker", inBroker},
}

// inBroker is what DecodeTask, DecodeTaskAddress, DecodeEvent and DecodePost read together.
func inBroker(*testing.T) []string {
	return []string{"task", "task_headers", "headers", "plain", "post_headers"}
}

// TestEveryMessageHasASchema fails for a message that this package reads and docs/schemas lacks, and the
// other way round.
func TestEveryMessageHasASchema(t *testing.T) {
	for _, name := range exported(t, "Decode") {
		if _, ok := decoders[name]; !ok {
			t.Errorf("wire.%s reads messages without schemas: describe them in docs/schemas and docs/asyncapi.yaml, and enter it in decoders here", name)
		}
	}
	for name, d := range decoders {
		files, err := filepath.Glob(schemas + "/" + d.folder + "/*.json")
		if err != nil {
			t.Fatal(err)
		}
		there := map[string]bool{}
		for _, f := range files {
			there[strings.TrimSuffix(filepath.Base(f), ".json")] = true
		}
		types := d.types(t)
		if len(types) == 0 {
			t.Errorf("no types of wire.%s were found", name)
		}
		for _, typ := range types {
			if !there[typ] {
				t.Errorf("wire.%s reads %q, which has no schema: write docs/schemas/%s/%s.json and name it in docs/asyncapi.yaml", name, typ, d.folder, typ)
			}
			delete(there, typ)
		}
		for typ := range there {
			t.Errorf("docs/schemas/%s/%s.json describes what wire.%s does not read", d.folder, typ, name)
		}
	}
	described := map[string]bool{"broker/plain": true}
	for _, m := range everyMessage() {
		described[m.schema] = true
	}
	for name, d := range decoders {
		for _, typ := range d.types(t) {
			if !described[d.folder+"/"+typ] {
				t.Errorf("wire.%s reads %q, of which golden_test.go has no message", name, typ)
			}
		}
	}
}

// TestSchemasHaveTheFieldsOfTheirTypes: the same names, and required is what Go always writes.
func TestSchemasHaveTheFieldsOfTheirTypes(t *testing.T) {
	parts := map[string]reflect.Type{
		"position": reflect.TypeFor[Position](), "task_status": reflect.TypeFor[TaskStatus](), "claim": reflect.TypeFor[Claim](),
		"run": reflect.TypeFor[RunInfo](), "fault": reflect.TypeFor[Error](), "kind_offer": reflect.TypeFor[KindOffer](),
		"post": reflect.TypeFor[Post](), "found_channel": reflect.TypeFor[FoundChannel](),
	}
	var common struct {
		Defs map[string]fields `json:"$defs"`
	}
	readSchema(t, "common", &common)
	for name, typ := range parts {
		sameFields(t, "common.json#/$defs/"+name, common.Defs[name], typ)
	}
	ledger := map[string]bool{}
	for _, m := range everyMessage() {
		var got fields
		readSchema(t, m.schema, &got)
		if strings.HasPrefix(m.schema, "ledger/") { // one type for all
			for name := range got.Properties {
				ledger[name] = true
			}
			continue
		}
		if m.typ != nil {
			sameFields(t, m.schema+".json", got, m.typ, m.more...)
			continue
		}
		var written map[string]any // of an event: it always has all of its fields
		if err := json.Unmarshal(m.bytes, &written); err != nil {
			t.Fatal(err)
		}
		if m.golden == "headers" {
			written[headerHops] = nil
		}
		if a, b := slices.Sorted(maps.Keys(got.Properties)), slices.Sorted(maps.Keys(written)); !slices.Equal(a, b) {
			t.Errorf("docs/schemas/%s.json has the fields %v, the code %v", m.schema, a, b)
		}
	}
	all, _ := fieldsOf(reflect.TypeFor[LedgerRecord]())
	if slices.Sort(all); !slices.Equal(slices.Sorted(maps.Keys(ledger)), all) {
		t.Errorf("docs/schemas/ledger has the fields %v, LedgerRecord %v", slices.Sorted(maps.Keys(ledger)), all)
	}
	var codes struct {
		Defs struct {
			Code struct{ Enum []Code }
		} `json:"$defs"`
	}
	readSchema(t, "common", &codes)
	if want := slices.Sorted(maps.Keys(retryable)); !slices.Equal(slices.Sorted(slices.Values(codes.Defs.Code.Enum)), want) {
		t.Errorf("common.json has the codes %v, the code %v", codes.Defs.Code.Enum, want)
	}
}

type fields struct {
	Required   []string
	Properties map[string]any
}

func readSchema(t *testing.T, name string, into any) {
	t.Helper()
	p, err := os.ReadFile(schemas + "/" + name + ".json")
	if err == nil {
		err = json.Unmarshal(p, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func sameFields(t *testing.T, file string, got fields, typ reflect.Type, more ...string) {
	t.Helper()
	all, always := fieldsOf(typ)
	all, always = append(all, more...), append(always, more...)
	for _, name := range all {
		if _, ok := got.Properties[name]; !ok {
			t.Errorf("%v has the field %s, which docs/schemas/%s lacks: describe it there", typ, name, file)
		}
		if required := slices.Contains(got.Required, name); required != slices.Contains(always, name) {
			t.Errorf("docs/schemas/%s: %s is required: %t; %v always writes it: %t", file, name, required, typ, !required)
		}
	}
	for name := range got.Properties {
		if !slices.Contains(all, name) {
			t.Errorf("docs/schemas/%s has the field %s, which %v lacks", file, name, typ)
		}
	}
}

// fieldsOf lists the names of a struct in JSON, and those of them that are never left out.
func fieldsOf(typ reflect.Type) (all, always []string) {
	for _, f := range reflect.VisibleFields(typ) {
		tag, ok := f.Tag.Lookup("json")
		if !ok {
			continue // an embedded struct, whose fields come by themselves
		}
		name, rest, _ := strings.Cut(tag, ",")
		all = append(all, name)
		if !strings.Contains(rest, "omitempty") {
			always = append(always, name)
		}
	}
	return all, always
}

// refusedBySchema checks that what a decoder refuses is refused by the schema of its type too, where it is
// JSON of a type that has one.
func refusedBySchema(t *testing.T, name, folder, typ string, p []byte) {
	t.Helper()
	file := folder + "/" + typ
	if _, err := os.Stat(schemas + "/" + file + ".json"); typ == "" || err != nil || strings.ContainsAny(typ, "/.") || !json.Valid(p) || !utf8.Valid(p) {
		return
	}
	if fits(schema(t, file), p) == nil {
		t.Errorf("%s: %.200s is refused, and fits docs/schemas/%s.json", name, p, file)
	}
}
