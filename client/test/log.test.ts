import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client } from '../src/client.ts';
import { LogReader, maxLogChars, maxLogTries, wholeLogs } from '../src/log.ts';
import type { Step } from '../src/order.ts';
import type { Task } from '../src/task.ts';
import type { LogLines, TaskEvent } from '../src/wire.ts';
import { World, run1, run2, settled } from './world.ts';

const numbers = { type: 'event', task_id: 't', attempt: 1, run_id: run1, seq: 1, prev: 0, durable: true, last: false } as const;
const timestamp = '2026-01-01T00:00:00.000Z';
const started: TaskEvent = { ...numbers, event: 'started', body: { kind: 'k', runner: 'r1', total_steps: 0, timestamp } };

const text = (first: number, n: number) => Array.from({ length: n }, (_, i) => `line ${first + i}`);

function copy(first: number, n: number, run_id = run1): TaskEvent {
  return { ...numbers, run_id, seq: 100 + first, durable: false, event: 'log', body: { first_line: first, lines: text(first, n) } };
}

function piece(first: number, n: number, last = first + n - 1, run_id = run1): LogLines {
  return { type: 'log_lines', id: 'log:t', task_id: 't', attempt: 1, run_id, runner: 'r1', first_line: first, lines: text(first, n), last_line: last, ended: false };
}

function result(last_line: number): TaskEvent {
  return { ...numbers, seq: 2, prev: 1, last: true, event: 'result', body: { value: 'v', last_line, timestamp } };
}

/** A connected client with one task whose steps are told as text. */
async function open(): Promise<{ w: World; task: Task; told: string[] }> {
  const w = new World();
  const c = new Client({ logs: wholeLogs, platform: w.platform });
  c.on('error', () => {});
  c.connect();
  await settled();
  await w.socket.welcome();
  const task = c.submit('k', {}, { taskId: 't' });
  const told: string[] = [];
  task.on('*', (s: Step) => {
    if (s.event !== 'log') told.push(s.event);
    else if (s.body.missing_lines) told.push(`${s.body.missing_lines} missing from ${s.body.first_line}`);
    else told.push(`${s.body.lines[0]} to ${s.body.lines.at(-1)}`);
  });
  return { w, task, told };
}

const asked = (w: World) => w.socket.of('log_read').map((m) => m.from_line);

test('live copies that follow one another are handed over, and nothing is asked for', async () => {
  const { w, told } = await open();
  for (const e of [started, copy(1, 3), copy(4, 2), result(5)]) w.socket.give(e);
  assert.deepEqual(told, ['started', 'line 1 to line 3', 'line 4 to line 5', 'result']);
  assert.deepEqual(asked(w), []);
});

test('what a live copy leaves out is asked for, and comes before what follows it', async () => {
  const { w, told } = await open();
  for (const e of [started, copy(1, 3), copy(8, 2)]) w.socket.give(e);
  assert.deepEqual(w.socket.of('log_read'), [{ type: 'log_read', id: 'log:t', task_id: 't', runner: 'r1', run_id: run1, from_line: 4 }]);
  w.socket.give(piece(4, 2));
  assert.deepEqual(asked(w), [4, 6]);
  w.socket.give(piece(6, 4));
  w.socket.give(copy(10, 1));
  assert.deepEqual(told, ['started', 'line 1 to line 3', 'line 4 to line 5', 'line 6 to line 9', 'line 10 to line 10']);
});

test('the final event waits for the last line that it names', async () => {
  const { w, task, told } = await open();
  w.socket.give(started);
  w.socket.give(result(2));
  assert.deepEqual(told, ['started']);
  assert.equal(task.position.next, 2);
  w.socket.give(piece(1, 2));
  assert.deepEqual(told, ['started', 'line 1 to line 2', 'result']);
  assert.equal(await task.result, 'v');
});

test('a client that takes no log events asks for none, and its final event waits for nothing', async () => {
  const w = new World();
  const c = new Client({ logs: wholeLogs, platform: w.platform });
  c.connect();
  await settled();
  await w.socket.welcome();
  const task = c.submit('k', {}, { taskId: 't' });
  for (const e of [started, copy(5, 2), result(9)]) w.socket.give(e);
  assert.equal(await task.result, 'v');
  assert.deepEqual(asked(w), []);
});

test('a question that the socket took with it is asked again on the next one', async () => {
  const { w, told } = await open();
  for (const e of [started, copy(5, 1)]) w.socket.give(e);
  assert.deepEqual(asked(w), [1]);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(asked(w), [1]);
  w.socket.give(piece(1, 5));
  assert.deepEqual(told, ['started', 'line 1 to line 5']);
});

test('lines that cannot be had are asked for again and then given up, and the task ends all the same', async () => {
  const { w, task, told } = await open();
  for (const e of [started, copy(1, 2), result(7)]) w.socket.give(e);
  for (let i = 0; i <= maxLogTries; i++) {
    assert.equal(asked(w).length, i + 1);
    w.socket.give({ type: 'error', id: 'log:t', task_id: 't', code: 'log_unavailable', message: 'gone', retryable: true });
    await w.advance(10_000);
  }
  assert.deepEqual(told, ['started', 'line 1 to line 2', '5 missing from 3', 'result']);
  assert.equal(await task.result, 'v');
});

test('another run begins at line 1, and a piece of the old one is dropped', async () => {
  const { w, told } = await open();
  for (const e of [started, copy(1, 1), copy(5, 1), copy(1, 1, run2), piece(2, 3)]) w.socket.give(e);
  assert.deepEqual(told, ['started', 'line 1 to line 1', 'reset', 'line 1 to line 1']);
});

test('what waits for the application is bounded: nothing is asked for before it has taken some', () => {
  const r = new LogReader('t');
  r.see(started, true);
  r.see(copy(9_999_999, 1), true);
  let n = 0;
  for (let line = 1; r.wants; line += 1000, n++) {
    r.asked = true;
    assert.ok(r.take({ ...piece(line, 1000), lines: Array<string>(1000).fill('x'.repeat(100)) }));
  }
  assert.ok(n * 100_000 >= maxLogChars && (n - 1) * 100_000 < maxLogChars, `${n} pieces`);
  assert.ok(r.settle(r.peek()));
  assert.ok(r.wants);
});
