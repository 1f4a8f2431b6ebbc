//go:build long

package engine

import "testing"

func TestBadWeatherForLong(t *testing.T) { badWeatherFor(t, 200) }
