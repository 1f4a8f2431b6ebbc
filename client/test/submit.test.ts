import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxOver } from '../src/client.ts';
import { clientOn, openOn } from './page.ts';
import { World, event, run1, settled } from './world.ts';

test('a refused submit rejects both promises and is not sent again', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('nope', {}, { taskId: 't' });
  w.socket.give({ type: 'error', id: 't', code: 'unknown_kind', message: 'no such kind', retryable: false });
  await assert.rejects(task.accepted, { code: 'unknown_kind' });
  await assert.rejects(task.result, { code: 'unknown_kind' });
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('submit'), []);
});

test('what is certain to be refused is refused at once', async () => {
  const { client } = clientOn(new World());
  for (const taskId of ['', '-a', '.a', 'a b', 'a/b', 'x'.repeat(65)]) assert.throws(() => client.submit('k', {}, { taskId }), { code: 'bad_frame' });
  for (const kind of ['', 'Go', 'a.b', 'x'.repeat(65)]) assert.throws(() => client.submit(kind), { code: 'bad_frame' });
  assert.throws(() => client.submit('k', { x: 'ü'.repeat(33_000) }), { code: 'frame_too_large' });
  client.submit('k', {}, { taskId: 'a' });
  assert.throws(() => client.submit('k', {}, { taskId: 'a' }), { code: 'conflict' });
  for (let i = 1; i < 100; i++) client.submit('k');
  assert.throws(() => client.submit('k'), { code: 'too_many_tasks', retryable: true });
});

test('a submit without its reply is sent again under the same ID on every socket, and after a reload', async () => {
  const w = new World();
  const { client } = clientOn(w);
  const task = client.submit('make', { target: 'all' });
  client.connect();
  await settled();
  await w.socket.welcome();
  const [first] = w.socket.of('submit');
  assert.equal(first?.task_id, task.id);
  w.socket.cut();
  await w.advance(1000);
  assert.deepEqual(w.socket.of('hello'), []);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('submit'), [first]);
  assert.deepEqual(w.socket.of('hello'), [{ type: 'hello', token: 'token-1' }], 'the server need not know the task yet');

  const after = new World(w.storage);
  const reloaded = await openOn(after);
  assert.deepEqual(after.socket.of('submit'), [first]);
  assert.deepEqual(reloaded.restored.map((t) => [t.id, t.kind]), [[task.id, 'make']]);
});

test('a priority is asked for until the task is accepted, also after a reload, and only where it is named', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 'a', priority: 'high' });
  client.submit('make', {}, { taskId: 'b' });
  assert.deepEqual(w.socket.of('submit').map((m) => m.priority), ['high', undefined]);
  const after = new World(w.storage);
  await openOn(after);
  assert.deepEqual(after.socket.of('submit').map((m) => m.priority), ['high', undefined]);
});

test('an event is as good as the reply', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0, 'started'));
  await task.accepted;
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('submit'), []);
  assert.deepEqual(w.socket.of('hello')[0]?.tasks, [{ task_id: 't', attempt: 1, run_id: run1, next: 2 }]);
});

test('a task whose events were acknowledged unseen is over, and so is one that ended: a submit under its ID says so at once', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const refuse = () => w.socket.give({ type: 'error', id: 't', task_id: 't', code: 'unknown_kind', message: 'not yet', retryable: false });
  const over = { name: 'TaskError', code: 'over', retryable: false, message: /submit under a new ID/ };
  client.submit('make', {}, { taskId: 't' });
  refuse();
  w.socket.give(event(1, 0, 'progress'));
  client.submit('make', {}, { taskId: 't' }); // nothing was acknowledged
  refuse();
  w.socket.give(event(2, 0)); // it runs all the same
  await settled();
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [3]);
  assert.throws(() => client.submit('make', {}, { taskId: 't' }), over);
  assert.equal(w.socket.of('submit').length, 2);

  client.submit('make', {}, { taskId: 'u' });
  w.socket.give(event(1, 0, 'result', { task_id: 'u' }));
  assert.throws(() => client.submit('make', {}, { taskId: 'u' }), over);
  for (let i = 1; i < maxOver; i++) w.socket.give(event(2, 1, 'log', { task_id: 'stranger' + i }));
  assert.throws(() => client.submit('make', {}, { taskId: 'u' }), over);
  client.submit('make', {}, { taskId: 't' }); // the oldest is forgotten
});
