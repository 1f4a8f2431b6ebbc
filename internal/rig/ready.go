package rig

import (
	"fmt"
	"io"
	"net/http"
	"time"
)

var prober = http.Client{Timeout: 2 * time.Second}

// Ready returns nil if the worker takes new clients, else what it says about why not.
func (m *Member) Ready() error {
	r, err := prober.Get("http://" + m.Addr + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %s: %s", m.Name, r.Status, body)
	}
	return nil
}
