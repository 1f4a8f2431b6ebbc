import { useEffect, useState } from 'preact/hooks';
import { Connection } from './connection.tsx';
import type { KindForm } from './params.ts';
import type { Session } from './session.ts';
import { SubmitForm } from './submit-form.tsx';
import { TaskList } from './task-list.tsx';
import { TaskPane } from './task-pane.tsx';
import { Views } from './views.tsx';

/** The page: connection on top, what can be asked for and what was on the left, one task on the right. */
export function App({ session, kinds }: { session: Session; kinds: KindForm[] }) {
  const [selected, select] = useSelected();
  const task = session.find(selected) ?? session.tasks[0];
  const submit = (kind: string, params: object) => {
    const { id } = session.submit(kind, params);
    select(id);
    return id;
  };
  const refusal = (id: string) => {
    const error = session.tasks.find((t) => t.id === id)?.error;
    return error?.code === 'bad_params' ? error.message : undefined;
  };
  const params = task?.params;
  return (
    <>
      <header class="top">
        <h1>wscluster</h1>
        <Views current="tasks" />
        <Connection session={session} />
      </header>
      <aside>
        <SubmitForm kinds={kinds} submit={submit} refusal={refusal} />
        <TaskList session={session} selected={task?.id} select={select} />
      </aside>
      <main>
        {session.unkept && (
          <p class="notice" role="status" data-testid="unkept">
            This browser has no room for all that is shown here: after a reload the oldest part of it stays, the rest is gone.
          </p>
        )}
        {task ? (
          <TaskPane key={task.id} task={task} session={session} again={params && (() => submit(task.kind, params))} />
        ) : (
          <p class="empty">No task yet. Submit one, and every step and line of it shows here as it happens.</p>
        )}
      </main>
    </>
  );
}

/** The selected task's ID lives in the address, so that reload, back and bookmarks keep it. */
function useSelected(): [string, (id: string) => void] {
  const read = () => location.hash.replace(/^#task=/, '');
  const [id, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener('hashchange', changed);
    return () => removeEventListener('hashchange', changed);
  }, []);
  return [
    id,
    (next) => {
      location.hash = 'task=' + next;
      set(next);
    },
  ];
}
