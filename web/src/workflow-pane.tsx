import { useEffect, useMemo } from 'preact/hooks';
import type { Client } from '../../client/src/index.ts';
import { WorkflowBar } from './overview-pane.tsx';
import { WorkflowWatch } from './overview.ts';

/** One workflow by its ID, whoever submitted it: how it stands, and each update that came since this was opened. */
export function WorkflowPane({ id: raw, client, changed }: { id: string; client: Client; changed: () => void }) {
  const id = decode(raw);
  const watch = useMemo(() => (/^\w[\w.-]{0,63}$/.test(id) ? new WorkflowWatch(client, id, changed) : undefined), [id]);
  useEffect(() => watch?.look(), [watch]);
  const w = watch?.now;
  return (
    <main class="overview" data-testid="workflow-pane" data-workflow={id} data-status={w?.status}>
      <section class="workflows" aria-labelledby="workflow-title">
        <header class="task">
          <h2 id="workflow-title">{w?.kind ?? 'Workflow'}</h2>
          {w && (
            <span class={`state ${w.status}`} role="status" data-testid="workflow-status">
              {w.status}
            </span>
          )}
          <span class="id">
            <code>{id}</code>
          </span>
        </header>
        {!w && <p class="empty">{words(watch)}</p>}
        {w && (
          <>
            <div class="now">
              <WorkflowBar w={w} />
              <span class="message" data-testid="workflow-message">
                {w.message}
              </span>
            </div>
            <h3>Updates</h3>
            <ol class="updates" data-testid="updates">
              {watch.updates.map((u, i) => (
                <li key={watch.updates.length - i}>
                  <time dateTime={u.timestamp} title={u.timestamp}>
                    {new Date(u.timestamp).toLocaleTimeString()}
                  </time>
                  <span class={`state ${u.status}`}>{u.status}</span>
                  <span class="quiet num">{u.total_steps > 0 && `${u.current_step}/${u.total_steps}`}</span>
                  <span class="message">{u.message}</span>
                </li>
              ))}
            </ol>
          </>
        )}
      </section>
    </main>
  );
}

function decode(raw: string): string {
  try {
    return decodeURIComponent(raw);
  } catch {
    return raw;
  }
}

function words(watch: WorkflowWatch | undefined): string {
  if (!watch) return 'That is no workflow ID: it has 1 to 64 letters, digits, _ . or -.';
  if (watch.watch === 'asked') return 'Asking …';
  if (watch.watch === 'live') return 'Nothing is known of this workflow now: it has not been submitted, or ended long ago. Its updates show here as they come.';
  return `It cannot be followed: ${watch.watch.refused}`;
}
