import { useEffect } from 'preact/hooks';
import { EngineStatus } from './engine-status.tsx';
import { clock } from './format.ts';
import { statuses } from './overview.ts';
import type { Overview, Row, Status } from './overview.ts';

/** Rows that are drawn; the filter leads to the others. */
const maxShown = 200;

/** All workflows of the cluster, live, and how the cluster itself stands. */
export function OverviewPane({ overview, status }: { overview: Overview; status: Status | '' }) {
  useEffect(() => overview.look(), [overview]);
  const rows = overview.workflows.list(status);
  return (
    <main class="overview" data-testid="overview">
      <section class="workflows" aria-labelledby="workflows-title">
        <div class="bar">
          <h2 id="workflows-title">Workflows</h2>
          <Filter overview={overview} status={status} />
          <FindWorkflow />
        </div>
        <Notes overview={overview} />
        {rows.length > 0 ? (
          <ul class="rows" data-testid="workflows">
            {rows.slice(0, maxShown).map((w) => (
              <WorkflowRow key={w.workflow_id} w={w} />
            ))}
          </ul>
        ) : (
          <p class="empty" data-testid="no-workflows">
            {overview.watch === 'asked' ? 'Asking …' : status ? `No workflow is ${status}.` : 'No workflow yet. Each one that is submitted, by whomever, shows here.'}
          </p>
        )}
        {rows.length > maxShown && <p class="empty">{rows.length - maxShown} more are not shown.</p>}
      </section>
      <EngineStatus engine={overview.engine} />
    </main>
  );
}

function Filter({ overview, status }: { overview: Overview; status: Status | '' }) {
  return (
    <nav class="filter" aria-label="Show workflows that are">
      {(['', ...statuses] as const).map((s) => (
        <a key={s} href={s ? `#overview=${s}` : '#overview'} aria-current={s === status ? 'true' : undefined} data-testid="filter" data-status={s}>
          {s || 'all'} <span class="num">{overview.workflows.count(s)}</span>
        </a>
      ))}
    </nav>
  );
}

function FindWorkflow() {
  return (
    <form
      class="find"
      onSubmit={(e) => {
        e.preventDefault();
        const id = new FormData(e.currentTarget).get('id') as string;
        if (id.trim()) location.hash = 'workflow=' + encodeURIComponent(id.trim());
      }}
    >
      <input name="id" aria-label="Workflow ID" placeholder="Workflow ID" autocomplete="off" spellcheck={false} data-testid="find-id" />
      <button type="submit" data-testid="find">
        Open
      </button>
    </form>
  );
}

/** What is to be known of the list: that it is refused, or may lack something. */
function Notes({ overview }: { overview: Overview }) {
  const { watch, missed, partial } = overview;
  return (
    <div role="status" class="notes" data-testid="notes">
      {typeof watch === 'object' && <p class="problem">Workflows cannot be followed: {watch.refused}</p>}
      {missed !== 0 && <p>{missed > 0 ? missed : 'Some'} updates did not come; the list is asked for again.</p>}
      {partial && <p>A task runner did not say in time what it has: workflows that do not move may be missing.</p>}
    </div>
  );
}

function WorkflowRow({ w }: { w: Row }) {
  return (
    <li data-testid="workflow" data-workflow={w.workflow_id} data-status={w.status}>
      <a href={'#workflow=' + encodeURIComponent(w.workflow_id)} title={w.message}>
        <span class={`dot ${w.status}`} aria-hidden="true" />
        <span class="name">{w.kind}</span>
        <code class="which">{w.workflow_id}</code>
        <span class={`state ${w.status}`} data-testid="workflow-status">
          {w.status}
        </span>
        <WorkflowBar w={w} />
        <span class="message" data-testid="workflow-message">
          {w.message}
        </span>
        <time class="quiet" dateTime={w.timestamp} title={w.timestamp}>
          {clock(Date.parse(w.timestamp))}
        </time>
      </a>
    </li>
  );
}

/** A bar of current_step in total_steps; none where those are not known. */
export function WorkflowBar({ w }: { w: Row | Omit<Row, 'since'> }) {
  if (!w.total_steps) return <span class={`progress ${w.status}`}>{w.status === 'running' && <progress aria-label="Progress" />}</span>;
  return (
    <span class={`progress ${w.status}`}>
      <progress value={w.current_step} max={w.total_steps} aria-label="Progress" data-testid="workflow-progress" />
      <span class="quiet num">
        {w.current_step}/{w.total_steps}
      </span>
    </span>
  );
}
