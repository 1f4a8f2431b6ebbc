package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// townGrantKeys are those of the shared cluster's workers.
const townGrantKeys = "e2e 0123456789abcdef0123456789abcdef"

// TestABackendsQuestionFindsItsClient at another worker; at a third one after the client's was killed with the question
// on its way; and once RabbitMQ is back.
func TestABackendsQuestionFindsItsClient(t *testing.T) {
	c := town(t)
	hold := make(chan struct{})
	asked := make(chan string, 16)
	answers := func(o *wsclient.Options) {
		o.OnRequest = func(ctx context.Context, r wire.Request) (any, error) {
			asked <- r.Key
			if r.Key == "held" {
				select {
				case <-hold:
				case <-ctx.Done():
				}
			}
			return r.Key, nil
		}
	}
	cl, leave := client(t, c.Workers[1].Addr, answers)
	expect := func(answer <-chan string, key string) {
		t.Helper()
		select {
		case got := <-answer:
			if want := fmt.Sprintf("200 {\"body\":%q}\n", key); got != want {
				t.Errorf("the backend got %q, want %q", got, want)
			}
		case <-c.ctx().Done():
			t.Fatalf("no answer to %s", key)
		}
	}
	ask := func(key string) <-chan string { return c.askClient(c.Workers[0].Addr, cl.Meta().Client, key) }
	expect(ask("near"), "near")

	<-asked
	held := ask("held")
	select {
	case <-asked:
	case <-c.ctx().Done():
		t.Fatal("the client was not asked")
	}
	c.Workers[1].Kill()
	leave() // with what it was about to answer
	close(hold)
	cl, _ = client(t, c.Workers[2].Addr, answers, func(o *wsclient.Options) { o.State = cl.State() })
	expect(held, "held")
	c.must(c.Workers[1].Restart(c.ctx()))

	c.Rabbit.Kill()
	late := ask("late")
	c.must(c.Rabbit.Restart(c.ctx()))
	expect(late, "late")
}

// askClient asks a client at a worker, as a backend does, and returns at once: the answer is a status and a body.
func (c *cluster) askClient(addr string, client socketmeta.ClientID, key string) <-chan string {
	c.t.Helper()
	keys, err := socketmeta.ParseKeys([]byte(townGrantKeys))
	c.must(err)
	grant, err := auth.SignGrant(keys, auth.Grant{Ask: true, Expires: time.Now().Add(time.Hour)})
	c.must(err)
	r, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, "http://"+addr+"/v1/clients/"+client.String()+"/requests",
		strings.NewReader(`{"name":"approve","timeout_ms":60000}`))
	c.must(err)
	r.Header.Set("Authorization", "Bearer "+grant)
	r.Header.Set("Idempotency-Key", key)
	answer := make(chan string, 1)
	go func() {
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		answer <- fmt.Sprintf("%d %s", resp.StatusCode, body)
	}()
	return answer
}
