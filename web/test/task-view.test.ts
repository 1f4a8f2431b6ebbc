import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EventName, TaskEvent } from '../../client/src/index.ts';
import { event, gap, run1, run2 } from '../../client/test/world.ts';
import { apply, fail, newTaskView } from '../src/task-view.ts';

const at = (s: number) => new Date(Date.UTC(2026, 0, 1, 0, 0, s)).toISOString();
const view = () => newTaskView('t', 'make', {}, 0);
const ev = (seq: number, name: EventName, body: object, over: Partial<TaskEvent> = {}) => event(seq, seq - 1, name, { body, ...over } as Partial<TaskEvent>);
const step = (seq: number, n: number, status: string, message: string) =>
  ev(seq, 'step', { workflow_id: 't', status, current_step: n, total_steps: 2, message, timestamp: at(seq) });

test('a task is followed from start to result', () => {
  const v = view();
  apply(v, ev(1, 'started', { kind: 'make', runner: 'r1', total_steps: 2, timestamp: at(1) }));
  apply(v, step(2, 1, 'running', 'clone'));
  apply(v, step(4, 1, 'succeeded', 'clone'));
  apply(v, step(5, 2, 'running', 'make all'));
  apply(v, ev(6, 'progress', { status: 'running', current_step: 3, total_steps: 9, message: 'cc x.c', timestamp: at(6) }));
  apply(v, ev(7, 'log', { first_line: 1, lines: ['a', 'b'] }));
  assert.equal(v.state, 'running');
  assert.deepEqual([v.runner, v.totalSteps, v.latest?.message, v.log.last], ['r1', 2, 'cc x.c', 2]);
  assert.deepEqual(v.steps.map((s) => [s.name, s.status, s.endedAt && s.endedAt - s.startedAt]), [['clone', 'succeeded', 2000], ['make all', 'running', undefined]]);
  apply(v, ev(8, 'result', { value: { ok: true }, last_line: 2, timestamp: at(9) }));
  assert.deepEqual([v.state, v.value, v.endedAt! - v.startedAt!], ['succeeded', { ok: true }, 8000]);
});

test('an event that comes twice, from the journal and from the server, counts once', () => {
  const v = view();
  const artifact = ev(1, 'artifact', { name: 'a', content_type: '', size_bytes: 0, sha256: '' });
  apply(v, artifact);
  apply(v, artifact);
  assert.equal(v.artifacts.length, 1);
});

test('another run begins the view anew', () => {
  const v = view();
  apply(v, ev(1, 'log', { first_line: 1, lines: ['old'] }));
  apply(v, step(2, 1, 'running', 'clone'));
  apply(v, { event: 'reset', attempt: 1, run_id: run2, seq: 0, durable: true, last: false });
  assert.deepEqual([v.log.last, v.steps.length, v.restarts], [0, 0, 1]);
  apply(v, ev(1, 'log', { first_line: 1, lines: ['new'] }, { run_id: run2 }));
  assert.deepEqual([v.log.blocks[0]?.lines, v.restarts], [['new'], 1]);
  const w = view();
  apply(w, ev(1, 'log', { first_line: 1, lines: ['old'] }, { run_id: run1 }));
  apply(w, ev(1, 'log', { first_line: 1, lines: ['new'] }, { run_id: run2 }));
  assert.deepEqual([w.log.blocks[0]?.lines, w.restarts], [['new'], 1], 'also without a reset in between');
});

test('a gap is noted in the log at its place, once', () => {
  const v = view();
  const missing = gap(2, 5, 1);
  for (const e of [ev(1, 'log', { first_line: 1, lines: ['a'] }), missing, missing, event(6, 5, 'log', { body: { first_line: 9, lines: ['i'] } } as Partial<TaskEvent>)]) apply(v, e);
  apply(v, gap(7, 7, 6, { body: { from_seq: 7, reason: 'a new one', timestamp: at(7) } } as Partial<TaskEvent>));
  assert.deepEqual(v.log.blocks.map((b) => b.note ?? b.lines[0]), [
    'a', 'events 2–5 were not kept: this page was away for longer than the server waits', 'i', 'event 7 was not kept: a new one',
  ]);
  assert.equal(v.state, 'running');
});

test('a task whose end is in a gap is lost, and the console says why', () => {
  const v = view();
  apply(v, ev(1, 'started', { kind: 'make', runner: 'r1', total_steps: 2, timestamp: at(1) }));
  apply(v, gap(2, 5, 1, { last: true, body: { from_seq: 2, reason: 'caps', timestamp: at(9) } } as Partial<TaskEvent>));
  fail(v, { code: 'missed', message: 'how the task ended was not kept', retryable: true });
  assert.deepEqual([v.state, v.error?.code, v.endedAt! - v.startedAt!], ['lost', 'missed', 8000]);
  assert.match(v.error!.message, /more waited for this page/);
});

test('a task ends as failed, refused or lost, and only once', () => {
  const error = { code: 'unknown_kind', message: 'no', retryable: false };
  const refused = view();
  fail(refused, error);
  assert.equal(refused.state, 'refused');
  const lost = view();
  fail(lost, { ...error, code: 'lost' });
  fail(lost, error);
  assert.deepEqual([lost.state, lost.error?.code], ['lost', 'lost']);
  const failed = view();
  apply(failed, ev(1, 'error', { code: 'timeout', message: 'too long', retryable: true, last_line: 0, timestamp: at(1) }));
  fail(failed, error);
  assert.deepEqual([failed.state, failed.error?.code], ['failed', 'timeout']);
});

test('a result in the words of another publisher is shown whole', () => {
  const v = view();
  apply(v, ev(1, 'result', { score: 7 }));
  assert.deepEqual(v.value, { score: 7 });
});

test('a body that lacks what it should have, or has it of another type, harms nothing', () => {
  const v = view();
  apply(v, ev(1, 'started', {}));
  apply(v, ev(2, 'artifact', { name: 'a' }));
  apply(v, ev(3, 'artifact', { size_bytes: 'many', sha256: 7 }));
  apply(v, ev(4, 'step', { current_step: 1 }));
  apply(v, ev(5, 'log', { first_line: 1, lines: 'no list' }));
  apply(v, ev(6, 'log', { first_line: 1, lines: [7, 'two', null] }));
  assert.deepEqual(v.artifacts, [{ name: 'a' }, { name: 'an artifact without a name' }]);
  assert.deepEqual(v.log.blocks.map((b) => b.lines), [['7', 'two', 'null']]);
  assert.equal([v.startedAt, v.steps[0]?.startedAt].some(Number.isNaN), false);
});
