package channel

import "github.com/wscluster/wscluster/pkg/wire"

// postBytes is what a post takes in memory beside its texts, about.
const postBytes = 256

func sizeOf(p *wire.Post) int {
	return postBytes + len(p.Channel) + len(p.Name) + len(p.Key) + len(p.Body)
}

// queue is the posts that the broker has not answered for, the oldest first. It is pure.
type queue struct {
	posts, bytes int // the most that it holds

	list []*wire.Post
	size int
}

func (q *queue) len() int { return len(q.list) }

// fits reports whether there is room for all of posts.
func (q *queue) fits(posts []wire.Post) bool {
	size := q.size
	for i := range posts {
		size += sizeOf(&posts[i])
	}
	return len(q.list)+len(posts) <= q.posts && size <= q.bytes
}

func (q *queue) put(p *wire.Post) {
	q.list = append(q.list, p)
	q.size += sizeOf(p)
}

// at returns the post behind n others, nil if there is none.
func (q *queue) at(n int) *wire.Post {
	if n >= len(q.list) {
		return nil
	}
	return q.list[n]
}

// drop removes the oldest.
func (q *queue) drop() {
	q.size -= sizeOf(q.list[0])
	q.list[0] = nil
	q.list = q.list[1:]
}
