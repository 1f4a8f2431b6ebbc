import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TaskError } from '../src/index.ts';
import { openOn } from './page.ts';
import { World, event } from './world.ts';

test('a cancel is asked on every new socket until the server has it', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const errors: string[] = [];
  client.on('error', (e) => errors.push((e as TaskError).code));
  const task = client.submit('make', {}, { taskId: 't' });
  task.cancel();
  const cancel = { type: 'cancel', id: 'cancel:t', task_id: 't', kind: 'make' };
  assert.deepEqual(w.socket.of('cancel'), [cancel]);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('cancel'), [cancel]);
  w.socket.give({ type: 'error', id: 'cancel:t', task_id: 't', code: 'unavailable', message: 'so', retryable: true, retry_after_ms: 500 });
  assert.deepEqual(errors, ['unavailable']);
  await w.advance(5000);
  assert.deepEqual(w.socket.of('cancel'), [cancel, cancel]);
  w.socket.give({ type: 'canceling', id: 'cancel:t', task_id: 't' });
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('cancel'), []);
  w.socket.give(event(1, 0, 'error', { body: { code: 'canceled', message: 'the task was canceled', retryable: false, last_line: 0, timestamp: '' } }));
  await assert.rejects(task.result, { code: 'canceled' });
  task.cancel();
  assert.deepEqual(w.socket.of('cancel'), []);
});

test('a cancel that is refused for good is told, and the task goes on', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const errors: string[] = [];
  client.on('error', (e) => errors.push((e as TaskError).code));
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give({ type: 'accepted', id: 't', task_id: 't' });
  task.cancel();
  w.socket.give({ type: 'error', id: 'cancel:t', task_id: 't', code: 'unknown_task', message: 'no', retryable: false });
  await w.advance(5000);
  assert.deepEqual([errors, w.socket.of('cancel').length, client.tasks.length], [['unknown_task'], 1, 1]);
});
