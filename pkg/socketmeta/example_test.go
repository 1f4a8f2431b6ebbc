package socketmeta_test

import (
	"errors"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// A worker signs the place of a client, and any worker with the same keys reads it again.
func Example() {
	keys, err := socketmeta.ParseKeys([]byte("2026-03 b8f1d1a0c2e64f7a9d3b5c7e9f0a1b2c"))
	if err != nil {
		fmt.Println(err)
		return
	}
	now := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	client := socketmeta.NewClientID()

	ticket, err := keys.SignToken(socketmeta.Token{
		Meta:     socketmeta.Meta{Client: client, Server: "i1-w3", Epoch: socketmeta.Epoch(0).Next(now.UnixMilli())},
		IssuedAt: now,
		Expires:  now.Add(30 * time.Minute),
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	token, err := keys.VerifyToken(ticket, now.Add(29*time.Minute))
	fmt.Println(token.Server, token.Epoch, token.Client == client, err)

	_, err = keys.VerifyToken(ticket, now.Add(30*time.Minute))
	fmt.Println(errors.Is(err, socketmeta.ErrExpired), err)

	_, err = keys.VerifyToken(ticket[:len(ticket)-1], now)
	fmt.Println(errors.Is(err, socketmeta.ErrForged), err)

	fmt.Println(keys)
	// Output:
	// i1-w3 1773480413000 true <nil>
	// true ticket has expired: 0s ago
	// true ticket is not signed by us: wrong signature for key 2026-03
	// keys[2026-03]
}
