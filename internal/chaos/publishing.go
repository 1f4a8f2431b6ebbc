package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wscluster/wscluster/internal/rig"
)

// publishing is one process after another that runs a Publisher.
type publishing struct {
	name, dir, bin string
	urls           []string // through the proxies
	rate           int
	batch          bool
	proxies        rig.Proxies // its ways to the nodes of RabbitMQ
	log            io.Writer

	lives int
	*rig.Process
}

// The environment of a publisher's process.
const (
	envURLs    = "WSCTL_CHAOS_AMQP_URLS"
	envJournal = "WSCTL_CHAOS_JOURNAL"
	envRate    = "WSCTL_CHAOS_RATE"
	envBatch   = "WSCTL_CHAOS_BATCH"
)

// PublisherCommand is the subcommand of wsctl that calls RunPublisher.
const PublisherCommand = "chaos-publisher"

// slots is how many tasks one publisher has at once: more than there are clients.
const slots = 2 * maxClients

// RunPublisher runs the publisher that the environment tells of, until ctx ends: the work of one
// of the processes that Run starts.
func RunPublisher(ctx context.Context, log io.Writer) error {
	rate, err := strconv.Atoi(os.Getenv(envRate))
	if err != nil || os.Getenv(envURLs) == "" {
		return errors.New("this command is for wsctl chaos, which starts it")
	}
	j, err := CreateJournal(os.Getenv(envJournal))
	if err != nil {
		return err
	}
	p := Publisher{URLs: strings.Fields(os.Getenv(envURLs)), Journal: j, Rate: rate, Slots: slots, Batch: os.Getenv(envBatch) == "true", Log: log}
	return errors.Join(p.Run(ctx), j.Close())
}

// start starts the process, with a journal of its own.
func (p *publishing) start() (err error) {
	p.lives++
	journal := filepath.Join(p.dir, fmt.Sprintf("%s-%d.journal", p.name, p.lives))
	p.Process, err = rig.Start(rig.Program{
		Path: filepath.Join(p.bin, "wsctl"), Args: []string{PublisherCommand}, Name: p.name, Log: p.log,
		Env: append(os.Environ(), envURLs+"="+strings.Join(p.urls, " "), envJournal+"="+journal, envRate+"="+strconv.Itoa(p.rate), envBatch+"="+strconv.FormatBool(p.batch)),
	})
	return err
}

// end asks the process to put its journal on disk and end.
func (p *publishing) end() {
	if p.Process != nil {
		_ = p.Stop(restWithin) // killed if it does not hear
	}
	for _, proxy := range p.proxies {
		proxy.Stop()
	}
}

// addPublisher starts one more publisher, behind proxies of its own. The first and every other one publishes batches, the others
// one event in each message: workers get both.
func (s *site) addPublisher(o Options) error {
	n := len(s.publishers)
	p := &publishing{name: fmt.Sprintf("publisher%d", n+1), dir: o.Dir, bin: o.Bin, rate: max(1, o.Rate/o.Publishers), batch: n%2 == 0, log: s.log}
	s.publishers = append(s.publishers, p)
	for i := range s.nodes {
		to, err := url.Parse(s.nodes[(n+i)%len(s.nodes)].URLFor("runner"))
		if err != nil {
			return err
		}
		proxy, err := rig.StartProxy(to.Host)
		if err != nil {
			return err
		}
		p.proxies = append(p.proxies, proxy)
		to.Host = proxy.Addr
		p.urls = append(p.urls, to.String())
	}
	return p.start()
}
