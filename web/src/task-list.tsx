import { clock } from './format.ts';
import type { TaskView } from './task-view.ts';

interface Props {
  tasks: TaskView[];
  selected: string | undefined;
  select: (id: string) => void;
}

/** This tab's tasks, newest first. */
export function TaskList({ tasks, selected, select }: Props) {
  if (!tasks.length) return null;
  return (
    <nav aria-label="Tasks of this tab">
      <h2>Tasks</h2>
      <ul class="tasks" data-testid="tasks">
        {tasks.map((t) => (
          <li key={t.id}>
            <button
              type="button"
              class={t.state}
              aria-current={t.id === selected ? 'true' : undefined}
              onClick={() => select(t.id)}
              data-testid="task"
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
        ))}
      </ul>
    </nav>
  );
}
