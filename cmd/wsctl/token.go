package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func tokenCommand() *cobra.Command {
	var g auth.Grant
	var ttl time.Duration
	var keysFile string
	c := &cobra.Command{
		Use:   "token --keys-file FILE",
		Short: "Print a grant: what its bearer may subscribe to, publish to, and ask",
		Long: `Sign a grant with the first key of a file as the workers' grant_keys_file has, and print it. A pattern is the
name of a channel, or the beginning of one with * behind; * alone is every channel.

It is a JWT that any backend can make: HS256, kid in the header, the claims subscribe, publish, ask and exp.`,
		Example: `  wsctl token --keys-file grant.keys --subscribe 'news.*' --ttl 15m`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			text, err := os.ReadFile(keysFile)
			if err != nil {
				return config.WithExit(config.ExitConfig, err)
			}
			keys, err := socketmeta.ParseKeys(text)
			if err != nil {
				return config.WithExit(config.ExitConfig, fmt.Errorf("%s: %w", keysFile, err))
			}
			if ttl <= 0 {
				return config.WithExit(config.ExitConfig, fmt.Errorf("--ttl %v must be longer than nothing, as in 15m", ttl))
			}
			if len(g.Subscribe)+len(g.Publish) == 0 && !g.Ask {
				return config.WithExit(config.ExitConfig, errors.New("a grant for nothing: give --subscribe, --publish or --ask"))
			}
			g.Expires = time.Now().Add(ttl)
			grant, err := auth.SignGrant(keys, g)
			if err != nil {
				return config.WithExit(config.ExitConfig, err)
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), grant)
			return err
		},
	}
	c.Flags().StringSliceVar(&g.Subscribe, "subscribe", nil, "pattern of channels that it allows to subscribe to; may be given again")
	c.Flags().StringSliceVar(&g.Publish, "publish", nil, "the same to publish to")
	c.Flags().BoolVar(&g.Ask, "ask", false, "allow to ask clients")
	c.Flags().StringVar(&g.Subject, "subject", "", "whom it is for; nobody judges it")
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is good")
	c.Flags().StringVar(&keysFile, "keys-file", "", "file with lines of <kid> <secret>; the first signs")
	_ = c.MarkFlagRequired("keys-file")
	return c
}
