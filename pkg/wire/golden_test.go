package wire

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

var update = flag.Bool("update", false, "write the golden files from the Go values")

const (
	goldenClient = "018f6d9a-2b3c-7d4e-8f50-123456789abc"
	goldenRun    = RunID("018f6d9a-30aa-7b11-9c22-abcdefabcdef")
	goldenTask   = TaskID("build-7f3a")
	goldenAsk    = RunID("018f6d9a-4a00-7000-8000-000000000001")
	goldenAskID  = "i2-w1." + string(goldenAsk)
)

var (
	goldenTime = Time{time.Date(2026, 3, 14, 9, 26, 53, 589e6, time.UTC)}
	goldenMeta = socketmeta.Meta{Client: mustClient(goldenClient), Server: "i1-w3", Epoch: 1773480413000}
)

// The golden files by the side that sends them. testdata/index.json holds the same for the
// TypeScript tests.
var (
	goldenFromClient = map[string]ClientMessage{
		"hello":        &Hello{},
		"hello_all":    &Hello{Auth: "eyJ.auth.sig", Token: "eyJ.resume.sig", Tasks: []Position{{goldenTask, 1, goldenRun, 6}, {"build-new", 0, "", 0}}},
		"confirm":      &Confirm{Epoch: goldenMeta.Epoch + 1},
		"submit":       &Submit{ID: "r1", Task: goldenTask, Kind: "go-build", Params: json.RawMessage(`{"repo":"/srv/git/app","ref":"main","packages":["./..."]}`)},
		"submit_high":  &Submit{ID: "r1", Task: goldenTask, Kind: "go-build", Priority: High},
		"cancel":       &Cancel{ID: "r2", Task: goldenTask, Kind: "go-build"},
		"log_read":     &LogRead{ID: "r3", Task: goldenTask, Runner: "r1", Run: goldenRun, From: 41},
		"ack":          &Ack{Tasks: []Position{{goldenTask, 1, goldenRun, 6}}},
		"subscribe":    &Subscribe{ID: "r4", Channel: "workflow.build-7f3a", Grant: "eyJ.grant.sig"},
		"unsubscribe":  &Unsubscribe{ID: "r5", Channel: "workflow.build-7f3a"},
		"presence_ask": &AskPresence{ID: "r6", Channel: "news.team-1"},
		"reply":        &Reply{ID: "r7", Request: goldenAskID, Body: json.RawMessage(`{"approved":true}`)},
		"ping":         &Ping{ID: "p1"},
	}
	goldenFromServer = map[string]ServerMessage{
		"socket_meta": &SocketMeta{
			Client: goldenMeta.Client, Server: goldenMeta.Server, Epoch: goldenMeta.Epoch,
			Token: "eyJ.resume.sig", Route: "eyJ.route.sig", HeartbeatMS: 15000, ResumeWindowMS: 600000,
		},
		"socket_meta_resumed": &SocketMeta{
			Client: goldenMeta.Client, Server: goldenMeta.Server, Epoch: goldenMeta.Epoch + 1,
			Token: "eyJ.resume.sig", Route: "eyJ.route.sig", HeartbeatMS: 15000, ResumeWindowMS: 600000, Resumed: true,
			Tasks: []TaskStatus{{goldenTask, TaskRunning}, {"build-old", TaskFinished}, {"build-lost", TaskUnknown}},
		},
		"socket_meta_refused": &SocketMeta{
			Client: goldenMeta.Client, Server: goldenMeta.Server, Epoch: goldenMeta.Epoch,
			Token: "eyJ.resume.sig", Route: "eyJ.route.sig", HeartbeatMS: 15000, ResumeWindowMS: 600000, Reason: "expired",
		},
		"accepted":       &Accepted{ID: "r1", Task: goldenTask, Position: new(0)},
		"canceling":      &Canceling{ID: "r2", Task: goldenTask},
		"log_lines":      &LogLines{ID: "r3", Task: goldenTask, Attempt: 1, Run: goldenRun, Runner: "r1", First: 41, Lines: []string{"\x1b[32mok\x1b[0m  app/core  0.021s", "FAIL app/web"}, LastLine: 42, Ended: true},
		"subscribed":     &Subscribed{ID: "r4", Channel: "workflow.build-7f3a", Snapshot: 1},
		"unsubscribed":   &Unsubscribed{ID: "r5", Channel: "workflow.build-7f3a"},
		"presence":       &Presence{ID: "r6", Channel: "news.team-1", Subscribers: 3, Partial: true},
		"message":        goldenPost(),
		"message_plain":  &Post{Channel: "news.team-1", Time: goldenTime, Body: json.RawMessage(`"lunch"`)},
		"missed":         &Missed{Channel: "workflows", Count: 12, Reason: MissedSlow},
		"request":        &Request{ID: goldenAskID, Key: "approve-42", Name: "approve", Body: json.RawMessage(`{"amount":12}`), TimeoutMS: 30_000},
		"event_started":  goldenEvent(1, 0, EventStarted),
		"event_step":     goldenEvent(5, 4, EventStep),
		"event_progress": goldenEvent(7, 6, EventProgress),
		"event_log":      goldenEvent(8, 6, EventLog),
		"event_artifact": goldenEvent(9, 6, EventArtifact),
		"event_result":   goldenEvent(10, 9, EventResult),
		"event_error":    goldenEvent(10, 9, EventError),
		"event_gap":      goldenEvent(5, 1, EventGap),
		"event_gap_last": last(goldenEvent(10, 5, EventGap)),
		"error":          &Refused{ID: "r1", Task: goldenTask, Error: *Errorf(CodeUnknownKind, "no task runner has ever offered kind %q", "go-biuld")},
		"error_frame":    &Refused{Error: Error{Code: CodeOverloaded, Message: "the worker's queue is full", Retryable: true, RetryAfterMS: 1500}},
		"pong":           &Pong{ID: "p1"},
		"bye":            &Bye{Code: 1012, Reason: "drain", RetryAfterMS: 2500},
	}
	goldenControl = map[string]ControlMessage{
		"control_moved":     &Moved{From: "i2-w1", Clients: []Claim{{goldenMeta.Client, goldenMeta.Epoch + 1}}},
		"control_seek":      &Seek{From: "i1-w3", Clients: []socketmeta.ClientID{goldenMeta.Client}},
		"control_handback":  &Handback{Mailbox: "i1-w3"},
		"control_offer":     &Offer{From: "i1-w3", Mailbox: "i1-w3"},
		"control_owner":     &Owner{From: "i2-w1", Mailbox: "i1-w3"},
		"control_probe":     &Probe{From: "i2-w1"},
		"control_runs_find": &FindRuns{From: "i2-w1", Ask: goldenAsk, Client: goldenMeta.Client, Before: goldenTime, Limit: 50},
		"control_runs_found": &RunsFound{Ask: goldenAsk, Runner: "r1", More: true, Runs: []RunInfo{{
			Task: goldenTask, Kind: "go-build", Status: RunFailed, Attempt: 1, Run: goldenRun, Runner: "r1", Submitted: goldenTime, Started: goldenTime, Ended: &goldenTime,
			CurrentStep: 2, TotalSteps: 4, LastLine: 43, LogBytes: 4711, LogDropped: 12, Error: Errorf(CodeFailed, "step test: exit status 1"),
		}}},
		"control_log_read":        &ReadLog{From: "i2-w1", Ask: goldenAsk, Client: goldenMeta.Client, Task: goldenTask, Run: goldenRun, Line: 42, Max: MaxLogChunk},
		"control_log_chunk":       &LogChunk{Ask: goldenAsk, Runner: "r1", Attempt: 1, Run: goldenRun, Line: 42, Offset: 4698, Data: []byte("FAIL app/web\n"), Lines: 42, Size: 4711, Ended: true},
		"control_here":            &Here{From: "i1-w3", Ready: true, Connections: 12, Sessions: 14, Channels: 3, Started: goldenTime},
		"control_channels_find":   &FindChannels{From: "i1-w3", Ask: goldenAsk, Channels: []Channel{"workflow.build-7f3a", "news.team-1"}},
		"control_channels_found":  &ChannelsFound{Ask: goldenAsk, Name: "r.r1", Channels: []FoundChannel{{Channel: "workflow.build-7f3a", Subscribers: 2, Kept: []Post{*goldenPost()}}}},
		"control_forward":         &Forward{From: "i2-w1", Ask: goldenAsk, Client: goldenMeta.Client, Epoch: goldenMeta.Epoch, Frame: json.RawMessage(`{"type":"ping","id":"p1"}`)},
		"control_forward_reply":   &Forward{From: "i2-w1", Ask: goldenAsk, Client: goldenMeta.Client, Epoch: goldenMeta.Epoch, Frame: json.RawMessage(`{"type":"cancel","task_id":"build-7f3a"}`), Reply: true},
		"control_forwarded":       &Forwarded{Ask: goldenAsk, Error: Errorf(CodeNotAttached, "the client has no connection here")},
		"control_forwarded_reply": &Forwarded{Ask: goldenAsk, Reply: json.RawMessage(`{"type":"canceling","task_id":"build-7f3a"}`)},
		"control_client_ask":      &AskClient{From: "i2-w1", Ask: goldenAsk, Client: goldenMeta.Client, Key: "approve-42", Name: "approve", Body: json.RawMessage(`{"amount":12}`), TimeoutMS: 30_000},
		"control_client_reached":  &Reached{Ask: goldenAsk, Server: "i1-w3"},
		"control_client_replied":  &ClientReplied{Ask: goldenAsk, Client: goldenMeta.Client, Body: json.RawMessage(`{"approved":true}`)},
		"control_kinds": &Kinds{Runner: "r1", Slots: 2, Running: 1, Kinds: []KindOffer{
			{Kind: "go-build", TimeoutMS: 1_800_000, Schema: json.RawMessage(`{"type":"object","required":["ref"],"properties":{"ref":{"type":"string","maxLength":200}}}`)},
			{Kind: "sleep", TimeoutMS: 60_000},
		}},
		"control_ask_kinds": &AskKinds{From: "i1-w3"},
	}
	goldenBodies = map[EventType]any{
		EventStarted:  &Started{Kind: "go-build", Runner: "r1", TotalSteps: 4, Timestamp: goldenTime},
		EventStep:     &Update{WorkflowID: goldenTask, Status: StatusSucceeded, CurrentStep: 2, TotalSteps: 4, Message: "go vet", Timestamp: goldenTime},
		EventProgress: &Update{WorkflowID: goldenTask, Status: StatusRunning, CurrentStep: 17, TotalSteps: 60, Message: "ok internal/session", Timestamp: goldenTime},
		EventLog:      &Log{FirstLine: 41, Lines: []string{"\x1b[32mok\x1b[0m  app/core  0.021s", "a < b && \"c\"", "日本語 \u2028 end"}},
		EventArtifact: &Artifact{Name: "app.tar.gz", ContentType: "application/gzip", SizeBytes: 1 << 20, SHA256: strings.Repeat("0f", 32)},
		EventResult:   &Result{Value: json.RawMessage(`{"packages":60,"failed":0}`), LastLine: 43, Timestamp: goldenTime},
		EventError:    &Failure{Error: *Errorf(CodeFailed, "step test: exit status 1"), LastLine: 43, Timestamp: goldenTime},
		EventGap:      &Gap{FromSeq: 2, Reason: GapExpired, Timestamp: goldenTime},
	}
	goldenTaskMessage = &Task{
		Meta: goldenMeta, Task: goldenTask, Kind: "go-build", Params: json.RawMessage(`{"ref":"main"}`), Priority: High,
		Subject: "alice@example.org", Submitted: goldenTime, Trace: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	goldenLedger = map[string]*LedgerRecord{
		"ledger_claim":      {Op: LedgerClaim, Client: goldenClient, Task: goldenTask, Attempt: 2, Run: goldenRun, Runner: "r1", Fence: 120, Spool: "018f6d9a-3999-7000-8000-00005b001001", Body: must(EncodeTask(goldenTaskMessage))},
		"ledger_claim_dead": {Op: LedgerClaim, Client: goldenClient, Task: goldenTask, Attempt: DeadAttempt, Run: goldenRun, Runner: "r1", Fence: 120, Dead: DeadDeliveryLimit, Body: must(EncodeTask(goldenTaskMessage))},
		"ledger_done":       {Op: LedgerDone, Client: goldenClient, Task: goldenTask, Attempt: 2, Run: goldenRun, Runner: "r1"},
		"ledger_free":       {Op: LedgerFree, Client: goldenClient, Task: goldenTask, Attempt: 2, Run: goldenRun, Runner: "r1"},
		"ledger_cancel":     {Op: LedgerCancel, Task: goldenTask, Client: goldenClient, Body: must(EncodeTask(&Task{Meta: goldenMeta, Task: goldenTask, Kind: "go-build", Submitted: goldenTime}))},
		"ledger_mark":       {Op: LedgerMark, Run: goldenRun, Runner: "r1"},
	}
)

var goldenEngine = &Engine{
	Server: "i1-w3", Broker: EngineBroker{Connected: true}, Timestamp: goldenTime,
	Workers: []EngineWorker{{Server: "i1-w3", Ready: true, Connections: 12, Sessions: 14, Channels: 3, Started: goldenTime, Seen: goldenTime}},
	Runners: []EngineRunner{{Runner: "r1", Slots: 2, Running: 1, Kinds: []string{"go-build", "sleep"}, Seen: goldenTime}},
	Queues:  []EngineQueue{{Kind: "go-build", Waiting: 4}},
}

func goldenPost() *Post {
	return &Post{
		Channel: "workflow.build-7f3a", Name: "workflow", Publisher: "r1", Stream: goldenRun, Seq: 7, Key: "build-7f3a", Time: goldenTime,
		Body: json.RawMessage(`{"workflow_id":"build-7f3a","kind":"go-build","status":"running","current_step":2,"total_steps":4,"message":"step 2 of 4: go vet","timestamp":"2026-03-14T09:26:53.589Z"}`),
	}
}

func must(p []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return p
}

func TestGoldenClientFrames(t *testing.T) {
	for name, m := range goldenFromClient {
		golden(t, name, EncodeClient(m))
		got, refused := DecodeClient(compact(t, name))
		if refused != nil {
			t.Errorf("%s: refused: %v", name, &refused.Error)
		} else if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%s decodes to something else (-want +got):\n%s", name, diff)
		}
	}
}

func TestGoldenServerFrames(t *testing.T) {
	for name, m := range goldenFromServer {
		golden(t, name, EncodeServer(m))
		got, err := DecodeServer(compact(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%s decodes to something else (-want +got):\n%s", name, diff)
		}
	}
}

func TestGoldenEventBodies(t *testing.T) {
	for typ, v := range goldenBodies {
		got := reflect.New(reflect.TypeOf(v).Elem()).Interface()
		if err := json.Unmarshal(goldenBody(typ), got); err != nil {
			t.Errorf("%s: %v", typ, err)
		} else if diff := cmp.Diff(v, got); diff != "" {
			t.Errorf("body of %s decodes to something else (-want +got):\n%s", typ, diff)
		}
	}
}

func TestGoldenTask(t *testing.T) {
	p, err := EncodeTask(goldenTaskMessage)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "task", p)
	got, err := DecodeTask(compact(t, "task"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenTaskMessage, got); diff != "" {
		t.Errorf("task decodes to something else (-want +got):\n%s", diff)
	}
}

// TestGoldenHeaders holds the AMQP side of an event: its headers, for authors of runners.
func TestGoldenHeaders(t *testing.T) {
	e := goldenEvent(5, 4, EventStep)
	e.Client, e.Epoch, e.Home = goldenMeta.Client, goldenMeta.Epoch, goldenMeta.Server
	p, err := marshal(e.Headers())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "headers", p)
}

// TestGoldenPost holds the AMQP side of a channel's message, and the body of those on engine.
func TestGoldenPost(t *testing.T) {
	golden(t, "post_headers", must(marshal(goldenPost().Headers())))
	golden(t, "engine", must(marshal(goldenEngine)))
	got, err := DecodePost(string(goldenPost().Channel), "workflow", goldenPost().Headers(), goldenPost().Body, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(goldenPost(), got); diff != "" {
		t.Errorf("a post decodes to something else (-want +got):\n%s", diff)
	}
}

func TestGoldenControlMessages(t *testing.T) {
	for name, m := range goldenControl {
		if want := "control_" + m.ControlType(); strings.TrimSuffix(name, "_reply") != want {
			t.Errorf("%s is of type %s", name, m.ControlType())
		}
		golden(t, name, EncodeControl(m))
		got, err := DecodeControl(m.ControlType(), compact(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%s decodes to something else (-want +got):\n%s", name, diff)
		}
	}
}

func TestGoldenLedgerRecords(t *testing.T) {
	for name, r := range goldenLedger {
		if want := "ledger_" + string(r.Op); strings.TrimSuffix(name, "_dead") != want {
			t.Errorf("%s is a %s", name, r.Op)
		}
		golden(t, name, must(EncodeLedger(r)))
		got, err := DecodeLedger(compact(t, name))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(r, got); diff != "" {
			t.Errorf("%s decodes to something else (-want +got):\n%s", name, diff)
		}
	}
}

// TestGoldenIndex fails if a file of testdata is in no table, or a table's file is missing.
func TestGoldenIndex(t *testing.T) {
	index := map[string][]string{"broker": {"engine", "headers", "post_headers", "task"}}
	for name := range goldenFromClient {
		index["client"] = append(index["client"], name)
	}
	for name := range goldenFromServer {
		index["server"] = append(index["server"], name)
	}
	for name := range goldenControl {
		index["control"] = append(index["control"], name)
	}
	for name := range goldenLedger {
		index["ledger"] = append(index["ledger"], name)
	}
	want := []string{"testdata/index.json"}
	for _, names := range index {
		slices.Sort(names)
		for _, name := range names {
			want = append(want, "testdata/"+name+".json")
		}
	}
	p, err := marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "index", p)
	got, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("golden files (-tables +testdata):\n%s", diff)
	}
}

// golden compares p with the golden file name, which is the same JSON indented.
func golden(t *testing.T, name string, p []byte) {
	t.Helper()
	var want bytes.Buffer
	if err := json.Indent(&want, p, "", "  "); err != nil {
		t.Fatalf("%s: %v in %s", name, err, p)
	}
	want.WriteByte('\n')
	if *update {
		if err := os.WriteFile("testdata/"+name+".json", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := readGolden(t, name); !bytes.Equal(got, want.Bytes()) {
		t.Errorf("testdata/%s.json differs from the Go value; -update writes it (-file +value):\n%s", name, cmp.Diff(string(got), want.String()))
	}
}

func readGolden(t *testing.T, name string) []byte {
	t.Helper()
	p, err := os.ReadFile("testdata/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// compact returns a golden file as it would cross the wire.
func compact(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, readGolden(t, name)); err != nil {
		t.Fatalf("testdata/%s.json: %v", name, err)
	}
	return b.Bytes()
}

func mustClient(s string) socketmeta.ClientID {
	c, err := socketmeta.ParseClientID(s)
	if err != nil {
		panic(err)
	}
	return c
}

func goldenEvent(seq, prev int64, typ EventType) *Event {
	return &Event{
		Task: goldenTask, Attempt: 1, Run: goldenRun, Seq: seq, Prev: prev,
		Type: typ, Durable: typ != EventProgress && typ != EventLog, Last: typ.final(), Body: goldenBody(typ),
	}
}

// last makes the gap e one that stands in for the final event, too.
func last(e *Event) *Event {
	e.Last = true
	e.Body = mustBody(&Gap{FromSeq: e.Prev + 1, Reason: GapCaps, Timestamp: goldenTime})
	return e
}

func goldenBody(typ EventType) json.RawMessage {
	return mustBody(goldenBodies[typ])
}

func mustBody(v any) json.RawMessage {
	body, err := Body(goldenMeta.Client, v)
	if err != nil {
		panic(err)
	}
	return body
}
