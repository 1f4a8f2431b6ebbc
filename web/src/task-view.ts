import type { Artifact, Step, TaskEvent, Update, WireError } from '../../client/src/index.ts';
import { LogLines } from './log.ts';

export type TaskState = 'submitting' | 'queued' | 'running' | 'succeeded' | 'failed' | 'canceled' | 'refused' | 'lost';

export interface StepView {
  index: number;
  name: string;
  status: Update['status'];
  startedAt: number;
  /** Unix milliseconds, as startedAt; undefined while it runs. */
  endedAt?: number;
}

/** An artifact as its event names it; a publisher may leave out what is optional to people. */
export type ArtifactView = Pick<Artifact, 'name'> & Partial<Artifact>;

/** What the page shows of one task. apply is its only way forward; nothing here touches the page. */
export interface TaskView {
  readonly id: string;
  readonly kind: string;
  /** Undefined where another page has submitted the task. */
  readonly params: object | undefined;
  readonly submittedAt: number;
  state: TaskState;
  queuePosition?: number | undefined;
  runner?: string;
  steps: StepView[];
  totalSteps: number;
  /** The step or progress event that came last: the progress bar and its message. */
  latest?: Update;
  artifacts: ArtifactView[];
  log: LogLines;
  /** The last line of the log, as the final event says; 0 before. */
  lastLine: number;
  startedAt?: number;
  endedAt?: number;
  value?: unknown;
  error?: Pick<WireError, 'code' | 'message' | 'retryable'> | undefined;
  /** The user wants it to end. */
  canceling?: boolean;
  /** Times the task began anew. */
  restarts: number;
  /** What the server said of a task that this page has not followed; another text means that it went on. */
  told?: string;
  /** The run that is shown, and the last durable event of it. */
  attempt: number;
  run: string;
  seq: number;
}

export function newTaskView(id: string, kind: string, params: object | undefined, submittedAt: number): TaskView {
  return {
    id, kind, params, submittedAt, state: 'submitting',
    steps: [], totalSteps: 0, artifacts: [], log: new LogLines(), lastLine: 0, restarts: 0, attempt: 0, run: '', seq: 0,
  };
}

export function ended(s: TaskState): boolean {
  return s !== 'submitting' && s !== 'queued' && s !== 'running';
}

/**
 * Brings a step into the view. Steps come from the client and from the journal of before a reload, so a
 * durable event may come twice: the second changes nothing. A step of another run begins the view anew.
 */
export function apply(v: TaskView, step: Step): void {
  if (step.attempt !== v.attempt || step.run_id !== v.run) begin(v, step);
  if (step.event === 'reset' || (step.durable || step.event !== 'log') && step.seq <= v.seq) return; // live lines have numbers of their own
  if (step.durable) v.seq = step.seq;
  if (!ended(v.state)) v.state = 'running';
  applyEvent(v, step);
}

function begin(v: TaskView, step: Step): void {
  if (v.attempt || v.run) v.restarts++;
  v.attempt = step.attempt;
  v.run = step.run_id;
  v.seq = 0;
  v.steps = [];
  v.totalSteps = 0;
  v.artifacts = [];
  v.log = new LogLines();
  delete v.latest;
  delete v.startedAt;
}

/** Bodies are strangers': what is read of one here need not be there, or of its type. */
function applyEvent(v: TaskView, e: TaskEvent): void {
  switch (e.event) {
    case 'started':
      v.runner = e.body.runner;
      v.totalSteps = e.body.total_steps;
      v.startedAt = time(e.body.timestamp);
      return;
    case 'step':
      applyStep(v, e.body);
      v.latest = e.body;
      return;
    case 'progress':
      v.latest = e.body;
      return;
    case 'log':
      v.log.append(e.body.first_line, textLines(e.body.lines));
      if (e.body.missing_lines) v.log.remark(`lines ${e.body.first_line}–${e.body.first_line + e.body.missing_lines - 1} cannot be had any more: no task runner has them`);
      return;
    case 'artifact':
      v.artifacts.push(artifactOf(e.body));
      return;
    case 'result':
      v.lastLine = e.body.last_line || 0;
      v.state = 'succeeded';
      v.value = 'value' in e.body ? e.body.value : e.body;
      v.endedAt = time(e.body.timestamp);
      return;
    case 'error':
      v.lastLine = e.body.last_line || 0;
      v.state = e.body.code === 'canceled' ? 'canceled' : 'failed';
      v.error = e.body;
      v.endedAt = time(e.body.timestamp);
      return;
    case 'gap': {
      const { from_seq: from, reason } = e.body;
      const events = from === e.seq ? `event ${from} was` : `events ${from}–${e.seq} were`;
      v.log.remark(`${events} not kept: ${gapReasons[reason] ?? reason}`);
      if (!e.last) return;
      v.state = 'lost';
      v.error = { code: 'missed', message: `the task is over, but how it ended was not kept: ${gapReasons[reason] ?? reason}`, retryable: true };
      v.endedAt = time(e.body.timestamp);
    }
  }
}

/** The reasons of a gap, for people. */
const gapReasons: Record<string, string> = {
  expired: 'this page was away for longer than the server waits',
  caps: 'more waited for this page than the server keeps for one',
};

function artifactOf({ name, content_type, size_bytes, sha256 }: Artifact): ArtifactView {
  return {
    name: typeof name === 'string' ? name : 'an artifact without a name',
    ...(typeof content_type === 'string' && { content_type }),
    ...(typeof size_bytes === 'number' && { size_bytes }),
    ...(typeof sha256 === 'string' && { sha256 }),
  };
}

function textLines(lines: unknown): string[] {
  return Array.isArray(lines) ? lines.map((l) => (typeof l === 'string' ? l : JSON.stringify(l))) : [];
}

function time(t: unknown): number {
  return (typeof t === 'string' && Date.parse(t)) || Date.now();
}

function applyStep(v: TaskView, u: Update): void {
  const at = time(u.timestamp);
  v.totalSteps = u.total_steps;
  let s = v.steps.find((x) => x.index === u.current_step);
  if (!s) {
    s = { index: u.current_step, name: u.message, status: u.status, startedAt: at };
    v.steps.push(s);
  }
  s.status = u.status;
  if (u.status !== 'running') s.endedAt = at;
}

/** The task ended without a final event: refused at its submit, or lost. */
export function fail(v: TaskView, e: Pick<WireError, 'code' | 'message' | 'retryable'>): void {
  if (ended(v.state)) return;
  v.state = e.code === 'lost' ? 'lost' : v.attempt || v.run ? 'failed' : 'refused';
  v.error = e;
}
