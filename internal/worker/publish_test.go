package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// watch gets what is published to the channels, as another worker does.
func (c *cluster) watch(channels ...wire.Channel) (next func() *wire.Post) {
	c.t.Helper()
	link, err := c.broker.Join(c.t.Context(), broker.Worker("i9-w9"))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = link.Close(context.Background()) })
	sub, err := link.OpenChannels(c.t.Context(), "i9-w9")
	if err == nil {
		err = sub.Bind(c.t.Context(), channels...)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return func() *wire.Post {
		c.t.Helper()
		select {
		case p := <-sub.Posts():
			post, err := wire.DecodePost(p.Channel, p.Type, p.Headers, p.Body, p.Time)
			if err != nil {
				c.t.Fatal(err)
			}
			return post
		case <-time.After(10 * time.Second):
			c.t.Fatal("no post within 10 s")
			return nil
		}
	}
}

// granted is an option of a worker that takes grants of keys.
func granted(t *testing.T, keys socketmeta.Keys) func(*worker.Options) {
	return func(o *worker.Options) {
		var err error
		if o.Grants, err = auth.NewGrants(keys, []string{"workflows"}); err != nil {
			t.Fatal(err)
		}
	}
}

func publishGrant(t *testing.T, keys socketmeta.Keys, publish ...string) string {
	t.Helper()
	s, err := auth.SignGrant(keys, auth.Grant{Publish: publish, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// post publishes over HTTP and returns the answer with its code of the closed list, if it has one.
func post(t *testing.T, w *running, target, grant, body string) (*http.Response, wire.Code) {
	t.Helper()
	r, err := http.NewRequest("POST", "http://"+w.addr+target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if grant != "" {
		r.Header.Set("Authorization", "Bearer "+grant)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded") // as curl does
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var problem wire.Error
	if answer.StatusCode != http.StatusAccepted {
		if err := json.Unmarshal(raw, &problem); err != nil || answer.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %v, content type %q: %s", target, err, answer.Header.Get("Content-Type"), raw)
		}
	}
	return answer, problem.Code
}

func TestABackendPublishesOverHTTP(t *testing.T) {
	c, keys := newCluster(t), socketmeta.RandomKeys()
	w := c.worker("i1-w1", granted(t, keys))
	next := c.watch("news.go", "news.rust")
	allowed := publishGrant(t, keys, "news.*")
	if answer, code := post(t, w, "/v1/publish/news.go?name=headline&key=a", allowed, `{"text":"1.26"}`); answer.StatusCode != http.StatusAccepted {
		t.Fatalf("one channel: %s, %s", answer.Status, code)
	}
	if answer, code := post(t, w, "/v1/publish?channel=news.rust&channel=news.go", allowed, ` null `); answer.StatusCode != http.StatusAccepted {
		t.Fatalf("two channels: %s, %s", answer.Status, code)
	}
	var got []string
	for range 3 {
		p := next()
		got = append(got, fmt.Sprintf("%s %s %s %s %d %s", p.Publisher, p.Channel, p.Name, p.Key, p.Seq, strings.TrimSpace(string(p.Body))))
	}
	want := []string{`i1-w1 news.go headline a 1 {"text":"1.26"}`, "i1-w1 news.rust   1 null", "i1-w1 news.go   2 null"}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q, want\n%q", got, want)
	}
}

func TestWhatABackendMayNotPublishIsRefused(t *testing.T) {
	c, keys := newCluster(t), socketmeta.RandomKeys()
	w := c.worker("i1-w1", granted(t, keys))
	allowed := publishGrant(t, keys, "news.*")
	many := strings.Repeat("channel=news.a&", 101)
	for name, test := range map[string]struct {
		target, grant, body string
		status              int
		code                wire.Code
	}{
		"no grant":               {"/v1/publish/news.go", "", "1", 401, wire.CodeUnauthorized},
		"no grant, open channel": {"/v1/publish/workflows", "", "1", 401, wire.CodeUnauthorized},
		"a grant of other keys":  {"/v1/publish/news.go", publishGrant(t, socketmeta.RandomKeys(), "*"), "1", 401, wire.CodeUnauthorized},
		"another channel":        {"/v1/publish/other", allowed, "1", 403, wire.CodeForbidden},
		"one of two channels":    {"/v1/publish?channel=news.go&channel=other", allowed, "1", 403, wire.CodeForbidden},
		"too large":              {"/v1/publish/news.go", allowed, `"` + strings.Repeat("x", wire.MaxPost-1) + `"`, 413, wire.CodeFrameTooLarge},
		"no JSON":                {"/v1/publish/news.go", allowed, "{", 400, wire.CodeBadFrame},
		"no body":                {"/v1/publish/news.go", allowed, "", 400, wire.CodeBadFrame},
		"no channel":             {"/v1/publish", allowed, "1", 400, wire.CodeBadFrame},
		"a wildcard":             {"/v1/publish/news.*", allowed, "1", 400, wire.CodeBadFrame},
		"too many channels":      {"/v1/publish?" + many, allowed, "1", 400, wire.CodeBadFrame},
		"a long key":             {"/v1/publish/news.go?key=" + strings.Repeat("k", 129), allowed, "1", 400, wire.CodeBadFrame},
		"a name with a slash":    {"/v1/publish/news.go?name=a/b", allowed, "1", 400, wire.CodeBadFrame},
	} {
		answer, code := post(t, w, test.target, test.grant, test.body)
		if answer.StatusCode != test.status || code != test.code {
			t.Errorf("%s: got %s, %s; want %d, %s", name, answer.Status, code, test.status, test.code)
		}
		if asks := answer.Header.Get("WWW-Authenticate") != ""; asks != (test.status == 401) {
			t.Errorf("%s: WWW-Authenticate %t", name, asks)
		}
	}
	if answer, code := post(t, w, "/v1/publish/news.go", allowed, `"`+strings.Repeat("x", wire.MaxPost-2)+`"`); answer.StatusCode != http.StatusAccepted {
		t.Errorf("of the largest size: %s, %s", answer.Status, code)
	}
}

func TestNothingIsTakenThatCannotBePublished(t *testing.T) {
	c, keys := newCluster(t), socketmeta.RandomKeys()
	w := c.worker("i1-w1", granted(t, keys))
	allowed, large := publishGrant(t, keys, "news"), `"`+strings.Repeat("x", wire.MaxPost-2)+`"`
	next := c.watch("news")

	c.broker.Block(true) // an alarm: it takes nothing
	taken := 0
	for {
		answer, code := post(t, w, "/v1/publish/news", allowed, large)
		if answer.StatusCode == http.StatusAccepted {
			if taken++; taken < 2000 {
				continue
			}
		}
		if answer.StatusCode != 503 || code != wire.CodeOverloaded || answer.Header.Get("Retry-After") == "" {
			t.Errorf("after %d posts: %s, %s, Retry-After %q; want 503, overloaded", taken, answer.Status, code, answer.Header.Get("Retry-After"))
		}
		break
	}
	c.broker.Block(false)
	for i := range taken {
		if p := next(); p.Seq != int64(i+1) {
			t.Fatalf("post %d has the number %d: what was refused took one, or one is lost", i+1, p.Seq)
		}
	}

	c.broker.Down(true)
	await(t, func() error {
		if answer, code := post(t, w, "/v1/publish/news", allowed, "1"); answer.StatusCode != 503 || code != wire.CodeUnavailable || answer.Header.Get("Retry-After") == "" {
			return fmt.Errorf("without a broker: %s, %s", answer.Status, code)
		}
		return nil
	})
	c.broker.Down(false)
}

func TestATaskIsQueuedUntilARunnerHasIt(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(echo))
	next := c.watch("workflows")
	client, _ := c.client(w)
	task := submit(t, client, map[string]int{"n": 7})
	var got []wire.Workflow
	for range 5 { // queued, started, two steps and the end; the worker's may come late
		p := next()
		var f wire.Workflow
		if err := json.Unmarshal(p.Body, &f); err != nil || p.Key != string(task.ID()) || !p.Time.Equal(f.Timestamp.Time) {
			t.Fatalf("post %+v: %v", p, err)
		}
		got = append(got, f)
	}
	slices.SortStableFunc(got, func(a, b wire.Workflow) int { return a.Timestamp.Compare(b.Timestamp.Time) })
	if f := got[0]; f.Status != wire.WorkflowQueued || f.WorkflowID != task.ID() || f.Kind != "k" || f.Message == "" || !got[1].Timestamp.After(f.Timestamp.Time) {
		t.Errorf("the first is %+v, the second %+v; want queued, and the runner's later", f, got[1])
	}
	if f := got[len(got)-1]; f.Status != wire.WorkflowSucceeded || f.CurrentStep != 2 || f.TotalSteps != 2 {
		t.Errorf("the last one is %+v, want the end, with both steps", f)
	}
}
