package load

import (
	"net"
	"slices"
	"testing"
)

func TestSourcesHave14000ClientsEachAtMost(t *testing.T) {
	for clients, want := range map[int]int{1: 32, 448_000: 32, 448_001: 33, 1_000_000: 72} {
		all := Loopback(clients)
		if len(all) != want {
			t.Errorf("%d clients dial from %d addresses, want %d", clients, len(all), want)
		}
		var seen []string
		for _, ip := range all {
			if !ip.IsLoopback() || ip.Equal(net.IPv4(127, 0, 0, 1)) || slices.Contains(seen, ip.String()) {
				t.Errorf("%v is no source, or one already", ip)
			}
			seen = append(seen, ip.String())
		}
	}
	if last := Loopback(14_000 * 300)[299]; !last.Equal(net.IPv4(127, 0, 2, 46)) {
		t.Errorf("the 300th is %v", last)
	}
}
