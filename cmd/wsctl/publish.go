package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/pkg/wire"
)

// grantVariable holds a grant where it is in no file. It is no flag, for ps shows flags to everybody.
const grantVariable = "WSCLUSTER_GRANT"

// publishWithin bounds one call of a worker.
const publishWithin = 30 * time.Second

// publication is one call of wsctl publish.
type publication struct {
	worker, name, key, grant string
	channels                 []string
	body                     []byte
}

func publishCommand() *cobra.Command {
	var p publication
	var body, grantFile string
	c := &cobra.Command{
		Use:   "publish CHANNEL... --url URL",
		Short: "Publish a message to channels, through a worker",
		Long: `Publish one JSON value to all subscribers of the channels that there are now. The value is --body, or
comes from standard input, and may have 64 KiB.

It needs a grant that allows to publish there (see wsctl token), from --grant-file or the variable
` + grantVariable + `. The exit code is 0 once the worker has taken it.`,
		Example: `  echo '{"text":"hello"}' | wsctl publish news.go --url http://127.0.0.1:9001 --grant-file grant`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(c *cobra.Command, channels []string) (err error) {
			p.channels = channels
			if p.grant, err = readGrant(grantFile); err != nil {
				return config.WithExit(config.ExitConfig, err)
			}
			if p.body = []byte(body); !c.Flags().Changed("body") {
				if p.body, err = io.ReadAll(io.LimitReader(c.InOrStdin(), wire.MaxPost+1)); err != nil {
					return fmt.Errorf("read the message: %w", err)
				}
				p.body = bytes.TrimRight(p.body, "\r\n")
			}
			return p.send(c.Context())
		},
	}
	c.Flags().StringVar(&p.worker, "url", "", "a worker, or HAProxy in front of them, as http://127.0.0.1:9001")
	c.Flags().StringVar(&p.name, "name", "", "what the message is")
	c.Flags().StringVar(&p.key, "key", "", "of the messages with one key only the latest is kept for who subscribes later")
	c.Flags().StringVar(&body, "body", "", "the JSON value; without it, standard input")
	c.Flags().StringVar(&grantFile, "grant-file", "", "file with the grant")
	_ = c.MarkFlagRequired("url")
	return c
}

// readGrant reads the grant from a file, or from the environment if there is none.
func readGrant(file string) (string, error) {
	if file == "" {
		if grant := os.Getenv(grantVariable); grant != "" {
			return grant, nil
		}
		return "", fmt.Errorf("a grant is needed: give --grant-file or set %s; wsctl token makes one", grantVariable)
	}
	text, err := os.ReadFile(file)
	return strings.TrimSpace(string(text)), err
}

// send posts p to its worker; nil once that has taken it.
func (p *publication) send(ctx context.Context) error {
	target, err := url.Parse(p.worker)
	if err != nil || target.Host == "" {
		return config.WithExit(config.ExitConfig, fmt.Errorf("--url %q must be as http://127.0.0.1:9001", p.worker))
	}
	target = target.JoinPath("v1", "publish")
	target.RawQuery = url.Values{"channel": p.channels, "name": {p.name}, "key": {p.key}}.Encode()
	ctx, cancel := context.WithTimeout(ctx, publishWithin)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(p.body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+p.grant)
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusAccepted {
		return nil
	}
	var refused wire.Error
	err = json.NewDecoder(io.LimitReader(answer.Body, 64<<10)).Decode(&refused)
	if err != nil || !refused.Code.Known() {
		return errors.New("publish: the worker answered " + answer.Status)
	}
	return fmt.Errorf("publish: %w", &refused)
}
