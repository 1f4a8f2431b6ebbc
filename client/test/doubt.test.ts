import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TaskError } from '../src/index.ts';
import { openOn } from './page.ts';
import { World, event, settled } from './world.ts';

const refusal = (code: string, retry_after_ms?: number) =>
  ({ type: 'error', id: 't', task_id: 't', code, message: 'so', retryable: true, ...(retry_after_ms && { retry_after_ms }) }) as const;

test('a submit in doubt is sent again under the same ID, with jitter, until it is accepted', async () => {
  const w = new World();
  const { client, errors } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const first = w.socket.of('submit')[0];
  for (const [i, code] of ['unavailable', 'overloaded', 'internal', 'too_many_tasks'].entries()) {
    w.socket.give(refusal(code));
    await w.advance(100 * 2 ** i - 1); // random is 0.5
    assert.equal(w.socket.of('submit').length, i + 1);
    await w.advance(1);
    assert.deepEqual(w.socket.of('submit')[i + 1], first);
  }
  assert.deepEqual(errors.map((e) => (e as TaskError).code), ['unavailable', 'overloaded', 'internal', 'too_many_tasks']);
  w.socket.give({ type: 'accepted', id: 't', task_id: 't' });
  await task.accepted;
  await w.advance(20_000);
  assert.equal(w.socket.of('submit').length, 5);
});

test('a submit in doubt waits as long as the server asks, on another socket too, but not beyond close', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(refusal('overloaded', 10_000));
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  await w.advance(8999);
  assert.deepEqual(w.socket.of('submit'), []);
  await w.advance(1);
  assert.equal(w.socket.of('submit').length, 1);
  w.socket.give(refusal('overloaded', 10_000));
  client.close();
  await w.advance(20_000);
  assert.equal(w.timers, 0);
  client.connect();
  await settled();
  await w.socket.welcome({ resumed: true });
  assert.equal(w.socket.of('submit').length, 1);
});

test('events of a submit in doubt are handed out in order, and stand for its acceptance', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const seen: number[] = [];
  task.on('log', (e) => void seen.push(e.seq));
  w.socket.give(refusal('unavailable'));
  w.socket.give(event(2, 1)); // the broker has it after all
  w.socket.give(event(1, 0));
  await task.accepted;
  w.socket.give(event(3, 2, 'result'));
  assert.equal(await task.result, 42);
  assert.deepEqual(seen, [1, 2]);
  await w.advance(1000);
  assert.equal(w.socket.of('submit').length, 1);
});

test('a certain refusal ends a submit in doubt; too many tasks are certain at first', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(refusal('unavailable'));
  await w.advance(100);
  w.socket.give({ type: 'error', id: 't', task_id: 't', code: 'unknown_kind', message: 'no', retryable: false });
  await assert.rejects(task.result, { code: 'unknown_kind' });
  await w.advance(1000);
  assert.equal(w.socket.of('submit').length, 2);
  const more = client.submit('make', {}, { taskId: 't' });
  w.socket.give(refusal('too_many_tasks'));
  await assert.rejects(more.accepted, { code: 'too_many_tasks' });
});
