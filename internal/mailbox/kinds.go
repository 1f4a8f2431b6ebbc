package mailbox

import (
	"encoding/json"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/catalog"
	"github.com/wscluster/wscluster/pkg/wire"
)

// offered is the catalog of what runners announce, for many goroutines. It outlives the links: what was
// announced is forgotten by its age alone.
type offered struct {
	log *zap.Logger

	mu      *sync.Mutex
	catalog *catalog.Catalog // guarded by mu
}

func newOffered(log *zap.Logger) offered {
	return offered{log: log, mu: new(sync.Mutex), catalog: catalog.New()}
}

func (k offered) hear(m *wire.Kinds) {
	k.mu.Lock()
	err := k.catalog.Hear(m, time.Now())
	k.mu.Unlock()
	if err != nil {
		k.log.Warn("an announcement of kinds is not of use; their parameters are left to the runners", zap.Error(err))
	}
}

// judge returns why no runner that announces the kind takes the parameters; nil if one does, or nobody
// says what it takes. How long it takes is up to the schemas, which are the runners'.
func (k offered) judge(kind string, params json.RawMessage) *wire.Error {
	k.mu.Lock()
	judges := k.catalog.Judges(kind, time.Now())
	k.mu.Unlock()
	return judges.Refuse(params)
}

// runners names the runners that announce, as far as this worker knows.
func (k offered) runners() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.catalog.Runners(time.Now())
}

// Kinds lists the kinds that runners announce, as far as this worker knows.
func (m *Mailbox) Kinds() []catalog.Kind {
	m.kinds.mu.Lock()
	defer m.kinds.mu.Unlock()
	return m.kinds.catalog.List(time.Now())
}
