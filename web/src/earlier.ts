import { newTaskView } from './task-view.ts';
import type { TaskState, TaskView } from './task-view.ts';

/** A page of GET /v1/tasks. */
export interface EarlierPage {
  tasks: TaskView[];
  /** The `before` of the next page; empty if this is the last one. */
  next: string;
  /** Task runners that did not answer: what they have is not in the list. */
  missing: string[];
}

/** Reads an answer of GET /v1/tasks; what is not of its shape is passed over. */
export function readPage(doc: unknown): EarlierPage {
  const { tasks, more, missing_runners: missing } = (doc ?? {}) as Record<string, unknown>;
  const runs = list(tasks).filter((r): r is RunInfo => typeof r?.task_id === 'string' && typeof r.kind === 'string' && !Number.isNaN(time(r.submitted_at)));
  return {
    tasks: runs.map(viewOf),
    next: more === true ? (runs.at(-1)?.submitted_at ?? '') : '',
    missing: list(missing).filter((m) => typeof m === 'string'),
  };
}

/** A run as the server tells it (docs/PROTOCOL.md, section 10): its fields may be missing. */
interface RunInfo {
  task_id: string;
  kind: string;
  submitted_at: string;
  status?: string;
  attempt?: number;
  run_id?: string;
  runner?: string;
  started_at?: string;
  ended_at?: string;
  last_line?: number;
  error?: TaskView['error'];
}

/** A run that was given up waits for its next attempt, as a task that was not begun. */
const states: Record<string, TaskState> = { running: 'running', succeeded: 'succeeded', failed: 'failed', given_up: 'queued' };

/** The view of a task of which only the server knows: how it stands, and where its log is, but no steps and no result. */
function viewOf(r: RunInfo): TaskView {
  const v = newTaskView(r.task_id, r.kind, undefined, time(r.submitted_at));
  v.state = r.error?.code === 'canceled' ? 'canceled' : (states[r.status ?? ''] ?? 'lost');
  v.lastLine = typeof r.last_line === 'number' ? r.last_line : 0;
  if (typeof r.runner === 'string') v.runner = r.runner;
  if (r.error) v.error = r.error;
  v.startedAt = time(r.started_at) || v.submittedAt;
  if (r.ended_at) v.endedAt = time(r.ended_at) || v.submittedAt;
  v.told = `${r.run_id} ${v.state} ${v.lastLine}`;
  return v;
}

function list(v: unknown): any[] {
  return Array.isArray(v) ? v : [];
}

function time(t: unknown): number {
  return typeof t === 'string' ? Date.parse(t) : NaN;
}
