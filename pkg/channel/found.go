package channel

import (
	"encoding/json"
	"fmt"

	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	foundRoom   = 1 << 10  // bytes of a ChannelsFound beside its channels, and more
	channelRoom = 256 + 64 // the same of a channel beside its posts
)

// Fit leaves out of an answer to FindChannels what does not fit into a control message: of each channel the oldest
// posts. The channels share the room; what one does not need is for those behind it.
func Fit(channels []wire.FoundChannel) []wire.FoundChannel {
	room := wire.MaxControl - foundRoom - len(channels)*channelRoom
	for i := range channels {
		c := &channels[i]
		share := room / (len(channels) - i)
		first, used := len(c.Kept), 0
		for first > 0 {
			n := encodedSize(&c.Kept[first-1])
			if used+n > share {
				break
			}
			used += n
			first--
		}
		c.Kept = c.Kept[first:]
		room -= used
	}
	return channels
}

// encodedSize is what p takes in the answer, with the comma behind it.
func encodedSize(p *wire.Post) int {
	b, err := json.Marshal(p) // escapes more than the answer's encoding does
	if err != nil {
		panic(fmt.Sprintf("channel: a post that was checked cannot be encoded: %v", err))
	}
	return len(b) + 1
}
