import { useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';
import { duration } from './format.ts';
import { LogView } from './log-view.ts';
import type { Session } from './session.ts';
import { ended } from './task-view.ts';
import type { ArtifactView, StepView, TaskView } from './task-view.ts';

interface Props {
  task: TaskView;
  session: Session;
  /** Submits the same under a new ID; undefined where the parameters are not known. */
  again: (() => void) | undefined;
}

/** One task: how far it is, its steps, how it ended, and its log. */
export function TaskPane({ task, session, again }: Props) {
  const pane = useRef<HTMLElement>(null);
  useEffect(() => {
    void session.load(task);
    pane.current!.scrollIntoView({ block: 'nearest' }); // where the page is one column
  }, [task]);
  return (
    <article ref={pane} data-testid="task-pane" data-task={task.id} data-state={task.state}>
      <Heading task={task} />
      <Progress task={task} cancel={session.follows(task) ? () => session.cancel(task) : undefined} />
      <Outcome task={task} again={again} />
      <div class="split">
        <Steps task={task} />
        <Log task={task} session={session} />
      </div>
    </article>
  );
}

function Heading({ task }: { task: TaskView }) {
  const began = task.startedAt ?? task.submittedAt;
  const took = task.startedAt && (task.endedAt ?? (ended(task.state) ? undefined : Date.now()));
  return (
    <header class="task">
      <h2>{task.kind}</h2>
      <span class={`state ${task.state}`} role="status" data-testid="task-state">
        {task.state}
      </span>
      {took && <span class="quiet num">{duration(took - began)}</span>}
      {task.runner && <span class="quiet">on {task.runner}</span>}
      {task.state === 'queued' && task.queuePosition !== undefined && (
        <span class="quiet">{task.queuePosition ? `about ${task.queuePosition} ahead` : 'next in line'}</span>
      )}
      {task.restarts > 0 && <span class="quiet">began anew {task.restarts === 1 ? 'once' : `${task.restarts} times`}</span>}
      <CopyID id={task.id} />
    </header>
  );
}

function CopyID({ id }: { id: string }) {
  const [copied, setCopied] = useState(false);
  const text = useRef<HTMLElement>(null);
  async function copy() {
    getSelection()?.selectAllChildren(text.current!); // where there is no clipboard (plain http), Ctrl-C does it
    await navigator.clipboard?.writeText(id);
    setCopied(!!navigator.clipboard);
  }
  return (
    <span class="id">
      <code ref={text} data-testid="task-id">
        {id}
      </code>
      <button type="button" onClick={() => void copy()} aria-label="Copy the task ID" data-testid="copy-id">
        {copied ? 'copied' : 'copy'}
      </button>
    </span>
  );
}

/** The latest step or progress: a bar of current_step in total_steps, and its message. */
function Progress({ task, cancel }: { task: TaskView; cancel: (() => void) | undefined }) {
  const u = task.latest;
  if (!u && ended(task.state)) return null;
  const bar = u?.total_steps ? { value: u.current_step, max: u.total_steps } : ended(task.state) ? { value: 1, max: 1 } : {};
  return (
    <div class={`progress ${task.state}`}>
      <progress {...bar} aria-label="Progress" data-testid="progress" />
      <span class="message" data-testid="message">
        {u?.message ?? (task.state === 'running' ? 'started' : 'waiting for a task runner')}
      </span>
      {u && u.total_steps > 0 && (
        <span class="quiet num">
          {u.current_step}/{u.total_steps}
        </span>
      )}
      {!ended(task.state) && cancel && (
        <button type="button" onClick={cancel} disabled={task.canceling} data-testid="cancel">
          {task.canceling ? 'Canceling …' : 'Cancel'}
        </button>
      )}
    </div>
  );
}

function Outcome({ task, again }: Omit<Props, 'session'>) {
  const button = again && (
    <button type="button" onClick={again} data-testid="again">
      Run again
    </button>
  );
  if (task.state === 'succeeded') {
    return (
      <section class="outcome good" aria-label="Result">
        {task.value === undefined ? (
          <p class="quiet">Its result went to the page that submitted it, and is not kept by the server.</p>
        ) : (
          <pre data-testid="result">{JSON.stringify(task.value, null, 2)}</pre>
        )}
        {task.artifacts.map((a) => (
          <p key={a.name} data-testid="artifact">
            {a.name} <span class="quiet">{about(a)}</span>
          </p>
        ))}
        {button}
      </section>
    );
  }
  if (!ended(task.state)) return null;
  const e = task.error ?? { code: 'lost', message: 'this tab does not follow the task any more', retryable: true };
  return (
    <section class="outcome bad" role="alert" data-testid="error">
      <p>
        <code data-testid="error-code">{e.code}</code> <span data-testid="error-message">{e.message}</span>
      </p>
      {(e.retryable || task.state !== 'refused') && button /* what was refused for good would be again */}
    </section>
  );
}

function about({ content_type: type, size_bytes: size, sha256 }: ArtifactView): string {
  return [type, size !== undefined && `${size.toLocaleString()} bytes`, sha256 && `SHA-256 ${sha256}`].filter(Boolean).join(', ');
}

function Steps({ task }: { task: TaskView }) {
  if (!task.steps.length) return null;
  return (
    <section class="steps" aria-label="Steps">
      <h3>
        Steps {task.totalSteps > 0 && <span class="quiet num">of {task.totalSteps}</span>}
      </h3>
      <ol data-testid="steps">
        {task.steps.map((s) => (
          <Step key={s.index} step={s} over={ended(task.state)} />
        ))}
      </ol>
    </section>
  );
}

function Step({ step: s, over }: { step: StepView; over: boolean }) {
  const until = s.endedAt ?? (over ? undefined : Date.now());
  return (
    <li class={s.status} data-testid="step" data-step={s.index} data-status={s.status}>
      <span class="mark" aria-hidden="true" />
      <span class="name">{s.name}</span>
      <span class="sr">{s.status}</span>
      {until !== undefined && <span class="quiet num">{duration(until - s.startedAt)}</span>}
    </li>
  );
}

function Log({ task, session }: { task: TaskView; session: Session }) {
  const [fault, setFault] = useState('');
  const [follow, setFollow] = useState(true);
  const [wrap, setWrap] = useState(false);
  const scroller = useRef<HTMLDivElement>(null);
  const view = useRef<LogView>(null);
  useLayoutEffect(() => {
    view.current = new LogView(scroller.current!, setFollow);
  }, []);
  useLayoutEffect(() => view.current!.show(task.log)); // after every draw; what is shown already costs nothing
  return (
    <section class="log" aria-label="Log">
      <div class="bar">
        <h3>
          Log{' '}
          <span class="quiet num" data-testid="log-count">
            {task.log.last.toLocaleString()} {task.log.last === 1 ? 'line' : 'lines'}
          </span>
        </h3>
        <label>
          <input type="checkbox" checked={wrap} onChange={(e) => setWrap(e.currentTarget.checked)} data-testid="wrap" /> wrap
        </label>
        <label>
          <input
            type="checkbox"
            checked={follow}
            onChange={(e) => (view.current!.follow = e.currentTarget.checked)}
            data-testid="follow"
          />{' '}
          follow
        </label>
        {task.log.last > 0 && (
          <button
            type="button"
            onClick={() => session.download(task).then(() => setFault(''), (e: Error) => setFault(e.message))}
            data-testid="download"
          >
            Download
          </button>
        )}
        {fault && <span role="alert">{fault}</span>}
      </div>
      <div ref={scroller} class={wrap ? 'lines wrap' : 'lines'} tabIndex={0} role="region" aria-label="Log lines" data-testid="log" />
    </section>
  );
}
