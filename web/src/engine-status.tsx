import type { Engine } from '../../client/src/index.ts';
import { clock } from './format.ts';

/** How workers, task runners, queues and the broker stand. */
export function EngineStatus({ engine: e }: { engine: Engine | undefined }) {
  return (
    <section class="engine" aria-labelledby="engine-title" data-testid="engine">
      <h2 id="engine-title">Engine</h2>
      {e ? <Status e={e} /> : <p class="quiet">Asking …</p>}
    </section>
  );
}

function Status({ e }: { e: Engine }) {
  const broker = !e.broker.connected ? 'failed' : e.broker.blocked ? 'queued' : 'succeeded';
  const words = !e.broker.connected ? 'not connected' : e.broker.blocked ? 'takes no messages (an alarm)' : 'connected';
  return (
    <>
      <p role="status" data-testid="broker" data-connected={e.broker.connected} data-blocked={e.broker.blocked}>
        <span class={`dot ${broker}`} aria-hidden="true" /> Broker {words}
      </p>
      <h3>Workers</h3>
      <Table
        head={['', 'sockets', 'sessions', 'channels']}
        rows={e.workers.map((w) => ({
          key: w.server_id,
          testid: 'worker',
          name: (
            <>
              <span class={`dot ${w.ready ? 'succeeded' : 'queued'}`} aria-hidden="true" /> {w.server_id}
              {!w.ready && <span class="quiet"> not ready</span>}
            </>
          ),
          title: `started ${w.started_at}`,
          cells: [w.connections, w.sessions, w.channels],
        }))}
        none="none"
      />
      <h3>Task runners</h3>
      <Table
        head={['', 'busy', 'kinds']}
        rows={e.runners.map((r) => ({
          key: r.runner,
          testid: 'runner',
          name: r.runner,
          title: `seen ${r.seen_at}`,
          cells: [`${r.running} of ${r.slots}`, r.kinds.join(', ')],
        }))}
        none="none: what is submitted waits"
      />
      <h3>Queues</h3>
      <Table
        head={['', 'waiting']}
        rows={e.queues.map((q) => ({ key: q.kind, testid: 'queue', name: q.kind, title: '', cells: [q.waiting] }))}
        none="none"
      />
      <p class="quiet">
        as {e.server_id} saw it at {clock(Date.parse(e.timestamp))}
      </p>
    </>
  );
}

interface TableRow {
  key: string;
  testid: string;
  name: preact.ComponentChildren;
  title: string;
  cells: (string | number)[];
}

function Table({ head, rows, none }: { head: string[]; rows: TableRow[]; none: string }) {
  if (!rows.length) return <p class="quiet">{none}</p>;
  return (
    <table>
      <thead>
        <tr>
          {head.map((h) => (
            <th key={h} scope="col">
              {h || <span class="sr">name</span>}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map((r) => (
          <tr key={r.key} data-testid={r.testid} title={r.title}>
            <th scope="row">{r.name}</th>
            {r.cells.map((c, i) => (
              <td key={i} class={typeof c === 'number' ? 'num' : ''}>
                {c}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  );
}
