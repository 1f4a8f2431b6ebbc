// Package catalog is what a worker knows of the kinds of tasks that runners announce: who takes a kind,
// and what its parameters must be. It is pure: no lock, goroutine or clock.
//
// It may know less than there is: a runner may be away, may never announce, or may have said so while the
// worker did not listen. So a kind that it does not know is not judged (docs/adr/0015).
package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/schema"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Bounds of a catalog. A runner beyond one of them is passed over, and for ForgetAfter no kind is judged:
// it might take what the others refuse.
const (
	MaxRunners  = 1000              // that announce
	MaxBytes    = 8 << 20           // of all schemas, each different one counted once; compiled they take several times that
	ForgetAfter = 100 * time.Second // a runner that was not heard of for so long: three announcements were missed
)

// ErrFull says that an announcement had no room.
var ErrFull = errors.New("the catalog of kinds is full")

// Catalog is what runners have announced. It is not safe for concurrent use; what it returns is.
type Catalog struct {
	runners map[string]*runner
	texts   map[string]*shared // by the text of the schema
	bytes   int                // of the keys of texts
	blind   time.Time          // until then nothing is judged
}

// runner is the last announcement of one.
type runner struct {
	heard time.Time
	kinds map[string]offer
}

type offer struct {
	shared  *shared // nil: no schema
	timeout time.Duration
}

// shared is one schema, which several runners may announce.
type shared struct {
	text   string
	schema *schema.Schema // nil: it does not compile here, and so judges nothing
	users  int
}

// New returns an empty catalog.
func New() *Catalog {
	return &Catalog{runners: map[string]*runner{}, texts: map[string]*shared{}}
}

// Hear takes an announcement in the place of its runner's last one. An error is for the log: which kinds
// have a schema that does not compile, told once for each such schema, or ErrFull.
func (c *Catalog) Hear(m *wire.Kinds, now time.Time) error {
	c.expire(now)
	last := c.runners[m.Runner]
	if len(m.Kinds) == 0 {
		c.drop(m.Runner)
		return nil
	}
	if last == nil && len(c.runners) >= MaxRunners {
		c.blind = now.Add(ForgetAfter)
		return fmt.Errorf("%w: runner %s is one more than %d", ErrFull, m.Runner, MaxRunners)
	}
	r := &runner{heard: now, kinds: map[string]offer{}}
	var errs []error
	for _, k := range m.Kinds {
		if _, twice := r.kinds[k.Kind]; twice {
			continue
		}
		o := offer{timeout: time.Duration(k.TimeoutMS) * time.Millisecond}
		var err error
		if len(k.Schema) > 0 {
			o.shared, err = c.share(string(k.Schema))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("runner %s: kind %s: %w", m.Runner, k.Kind, err))
		}
		if errors.Is(err, ErrFull) {
			c.release(r)
			c.drop(m.Runner)
			c.blind = now.Add(ForgetAfter)
			return errors.Join(errs...)
		}
		r.kinds[k.Kind] = o
	}
	c.drop(m.Runner) // only now: what both announce is not compiled again
	c.runners[m.Runner] = r
	return errors.Join(errs...)
}

// share returns the schema of that text. An error says that it does not compile, or ErrFull.
func (c *Catalog) share(text string) (*shared, error) {
	s := c.texts[text]
	if s != nil {
		s.users++
		return s, nil
	}
	if c.bytes+len(text) > MaxBytes {
		return nil, fmt.Errorf("%w: the schemas have more than %d bytes", ErrFull, MaxBytes)
	}
	compiled, err := schema.Compile([]byte(text))
	s = &shared{text: text, schema: compiled, users: 1}
	c.texts[text] = s
	c.bytes += len(text)
	return s, err
}

func (c *Catalog) drop(name string) {
	if r := c.runners[name]; r != nil {
		c.release(r)
		delete(c.runners, name)
	}
}

func (c *Catalog) release(r *runner) {
	for _, o := range r.kinds {
		if o.shared == nil {
			continue
		}
		if o.shared.users--; o.shared.users == 0 {
			delete(c.texts, o.shared.text)
			c.bytes -= len(o.shared.text)
		}
	}
}

func (c *Catalog) expire(now time.Time) {
	for name, r := range c.runners {
		if now.Sub(r.heard) >= ForgetAfter {
			c.drop(name)
		}
	}
}

// Runners returns the names of those that announce.
func (c *Catalog) Runners(now time.Time) []string {
	c.expire(now)
	return slices.Sorted(maps.Keys(c.runners))
}

// Judges returns the schemas of a kind, each different one once, of which one must take the parameters of
// a submit. There are none, and so there is nothing to judge by, if nobody announces the kind, or some
// runner takes it without a schema.
func (c *Catalog) Judges(kind string, now time.Time) Judges {
	if now.Before(c.blind) {
		return nil
	}
	var all []*shared
	for _, r := range c.runners {
		o, ok := r.kinds[kind]
		switch {
		case !ok || now.Sub(r.heard) >= ForgetAfter:
		case o.shared == nil || o.shared.schema == nil:
			return nil
		case !slices.Contains(all, o.shared):
			all = append(all, o.shared)
		}
	}
	slices.SortFunc(all, func(a, b *shared) int { return strings.Compare(a.text, b.text) })
	judges := make(Judges, len(all))
	for i, s := range all {
		judges[i] = s.schema
	}
	return judges
}

// Judges are the schemas of one kind.
type Judges []*schema.Schema

// Refuse says what is wrong with parameters, by the first schema, if none takes them; nil if one does, or
// there is none.
func (j Judges) Refuse(params json.RawMessage) *wire.Error {
	var first *wire.Error
	for _, s := range j {
		_, err := s.Read(params)
		if err == nil {
			return nil
		}
		refusal, ok := errors.AsType[*wire.Error](err)
		if !ok {
			return nil // not about the parameters: the runner may know better
		}
		if first == nil {
			first = refusal
		}
	}
	return first
}
