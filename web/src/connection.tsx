import type { Session } from './session.ts';

/** The state of the socket, and the socket meta behind a disclosure. */
export function Connection({ session }: { session: Session }) {
  const s = session.connection;
  const { meta } = session;
  return (
    <div class="connection">
      <span class={`dot ${s.name}`} aria-hidden="true" />
      <span role="status" data-testid="connection" data-state={s.name} data-transport={s.name === 'open' ? s.transport : undefined}>
        {words(session)}
      </span>
      {s.name === 'waiting' && (
        <span class="quiet" data-testid="retry-countdown">
          try {s.attempt} in {Math.max(0, Math.ceil((session.retryAt - Date.now()) / 1000))} s
        </span>
      )}
      {s.name === 'closed' && (
        <button type="button" onClick={() => session.connect()} data-testid="reconnect">
          Reconnect
        </button>
      )}
      {meta && (
        <details class="meta" data-testid="meta">
          <summary data-testid="server-id">{meta.server_id}</summary>
          <dl>
            <dt>Client ID</dt>
            <dd data-testid="client-id">{meta.client_id}</dd>
            <dt>Server ID</dt>
            <dd data-testid="meta-server-id">{meta.server_id}</dd>
            <dt>Epoch</dt>
            <dd data-testid="epoch">{meta.epoch}</dd>
            <dt>Resumed</dt>
            <dd data-testid="resumed">{meta.resumed ? 'yes' : meta.reason ? `no: ${meta.reason}` : 'no'}</dd>
            <dt>Transport</dt>
            <dd>{s.name !== 'open' ? 'none' : s.transport === 'ws' ? 'WebSocket' : 'event stream: no WebSocket can be opened'}</dd>
            <dt>Resume window</dt>
            <dd>{Math.round(meta.resume_window_ms / 60_000)} min</dd>
          </dl>
        </details>
      )}
    </div>
  );
}

function words({ connection: s }: Session): string {
  switch (s.name) {
    case 'open':
      return 'Connected';
    case 'waiting':
      return `Disconnected${s.reason ? ` (${s.reason})` : ''}`;
    case 'closed':
      return `Closed: ${s.reason || `code ${s.code}`}`;
    default:
      return 'Connecting…';
  }
}
