import { clock } from './format.ts';
import type { Session } from './session.ts';
import type { TaskView } from './task-view.ts';

interface Props {
  session: Session;
  selected: string | undefined;
  select: (id: string) => void;
}

/** The session's tasks, newest first: this tab's own, then those of earlier pages, as the server tells them. */
export function TaskList({ session, selected, select }: Props) {
  const { tasks, earlier, older, missing, earlierFault } = session;
  if (!tasks.length && !earlier.length && !earlierFault) return null;
  const row = (t: TaskView, id: string) => <Row key={t.id} task={t} id={id} current={t.id === selected} select={select} />;
  return (
    <nav aria-label="Tasks">
      <h2>Tasks</h2>
      <ul class="tasks" data-testid="tasks">
        {tasks.map((t) => row(t, 'task'))}
        {earlier.map((t) => row(t, 'earlier'))}
      </ul>
      {older && (
        <button type="button" onClick={() => void session.readEarlier(true)} data-testid="older">
          Show older
        </button>
      )}
      {missing.length > 0 && (
        <p class="quiet" data-testid="missing">
          {missing.join(', ')} did not answer: tasks that ran there may be missing.
        </p>
      )}
      {earlierFault && (
        <p class="quiet" data-testid="earlier-fault">
          Earlier tasks cannot be read: {earlierFault}{' '}
          <button type="button" onClick={() => void session.readEarlier()}>
            Try again
          </button>
        </p>
      )}
    </nav>
  );
}

function Row({ task: t, id, current, select }: { task: TaskView; id: string; current: boolean; select: (id: string) => void }) {
  return (
    <li>
      <button
        type="button"
        class={t.state}
        aria-current={current ? 'true' : undefined}
        onClick={() => select(t.id)}
        data-testid={id}
        data-task={t.id}
        data-state={t.state}
      >
        <span class={`dot ${t.state}`} aria-hidden="true" />
        <span class="name">{t.kind}</span>
        <span class="quiet">{t.state}</span>
        <time class="quiet" dateTime={new Date(t.submittedAt).toISOString()}>
          {clock(t.submittedAt)}
        </time>
      </button>
    </li>
  );
}
