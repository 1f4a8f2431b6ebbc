package worker

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/wscluster/wscluster/internal/ask"
	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is the HTTP side of questions to clients: a backend asks one, over whichever worker, and the response is the
// client's answer. The bearer is a grant.

const (
	pathAsk = "POST /v1/clients/{client_id}/requests"

	keyHeader = "Idempotency-Key"
	askWithin = 30 * time.Second // unless the request says otherwise
)

func newAsks(w *Worker) (*ask.Desk, *prometheus.CounterVec) {
	desk := ask.New(ask.Options{
		Server: w.o.Server,
		Say:    func(to broker.Address, m wire.ControlMessage) { w.mailbox.Say(to, m) },
		Send: func(c socketmeta.ClientID, m wire.ServerMessage) bool {
			return w.sessions.Send(c, engine.NewText(wire.EncodeServer(m)))
		},
		Where: w.sessions.Attached,
	})
	f := promauto.With(w.metrics)
	f.NewGaugeFunc(prometheus.GaugeOpts{Name: "wscluster_client_requests_open",
		Help: "Requests to clients that have no answer yet."}, func() float64 { return float64(desk.Open()) })
	return desk, f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_client_requests_total",
		Help: "Requests of backends to clients, by outcome: answered; failed, where the client answered with an error; gone, where the backend went away; else the code of the refusal."}, []string{"outcome"})
}

// askClient asks a client and answers with what it answers: 200 and {"body": ...}. Errors are problem+json: 504
// no_answer; 502 failed with the client's own words; 409 conflict; 503 overloaded or unavailable; 400, 401, 403, 413.
func (w *Worker) askClient(rw http.ResponseWriter, r *http.Request) {
	if err := w.o.Grants.AllowAsk(bearer(r.Header), time.Now()); err != nil {
		problem(rw, err)
		return
	}
	p, done, ok := w.readBody(rw, r)
	if !ok {
		return
	}
	q, err := question(r, p)
	done()
	var answer *ask.Answer
	if err == nil {
		answer, err = w.asks.Ask(r.Context(), *q)
	}
	if err == nil && answer.Error != "" {
		err = &wire.Error{Code: wire.CodeFailed, Message: answer.Error} // again it would be the same
	}
	outcome := "answered"
	if e, ok := errors.AsType[*wire.Error](err); ok {
		outcome = string(e.Code)
	} else if err != nil {
		outcome = "gone"
	}
	w.asked.WithLabelValues(outcome).Inc()
	if err != nil {
		problem(rw, err)
		return
	}
	writeJSON(rw, struct {
		Body json.RawMessage `json:"body"`
	}{answer.Body})
}

// question reads a request with the body p. It keeps nothing of p; the error is a *wire.Error.
func question(r *http.Request, p []byte) (*ask.Question, error) {
	client, err := socketmeta.ParseClientID(r.PathValue("client_id"))
	if err != nil {
		return nil, wire.Errorf(wire.CodeBadFrame, "%v", err)
	}
	key := r.Header.Get(keyHeader)
	if key == "" || len(key) > wire.MaxKey || !utf8.ValidString(key) {
		return nil, wire.Errorf(wire.CodeBadFrame, "the header %s must have 1 to %d bytes: requests with the same one are one", keyHeader, wire.MaxKey)
	}
	m := struct {
		Name      string          `json:"name"`
		Body      json.RawMessage `json:"body"`
		TimeoutMS int64           `json:"timeout_ms"`
	}{TimeoutMS: askWithin.Milliseconds()}
	if err := json.Unmarshal(p, &m); err != nil || !utf8.Valid(p) {
		return nil, wire.Errorf(wire.CodeBadFrame, `the request must be {"name": "...", "body": any JSON, "timeout_ms": 30000}, in UTF-8`)
	}
	if m.TimeoutMS < 1 || m.TimeoutMS > ask.MaxWithin.Milliseconds() {
		return nil, wire.Errorf(wire.CodeBadFrame, "timeout_ms must be a number of 1 to %d", ask.MaxWithin.Milliseconds())
	}
	if err := wire.CheckName(m.Name); err != nil {
		return nil, wire.Errorf(wire.CodeBadFrame, "%v", err)
	}
	var body bytes.Buffer
	if len(m.Body) > 0 {
		_ = json.Compact(&body, m.Body) // it was read already
	}
	return &ask.Question{Client: client, Key: key, Name: m.Name, Body: body.Bytes(), Within: time.Duration(m.TimeoutMS) * time.Millisecond}, nil
}
