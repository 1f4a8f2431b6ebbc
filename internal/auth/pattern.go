package auth

import (
	"fmt"
	"strings"

	"github.com/wscluster/wscluster/pkg/wire"
)

// maxPatterns is how many patterns one list may have.
const maxPatterns = 100

// patterns name channels: each is a channel's name, or the beginning of one with * behind it; * alone is every channel.
type patterns []string

// parsePatterns checks a list.
func parsePatterns(list []string) (patterns, error) {
	if len(list) > maxPatterns {
		return nil, fmt.Errorf("%d patterns; at most %d may be", len(list), maxPatterns)
	}
	for _, p := range list {
		name, wild := strings.CutSuffix(p, "*")
		if _, err := wire.ParseChannel(name); err != nil && (!wild || name != "") {
			return nil, fmt.Errorf(`pattern %.140q must be a channel's name, or the beginning of one with * at its end, as in "news.*"`, p)
		}
	}
	return patterns(list), nil
}

// match reports whether one of them names c.
func (ps patterns) match(c wire.Channel) bool {
	for _, p := range ps {
		if prefix, wild := strings.CutSuffix(p, "*"); p == string(c) || wild && strings.HasPrefix(string(c), prefix) {
			return true
		}
	}
	return false
}
