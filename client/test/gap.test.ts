import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientOn, openOn } from './page.ts';
import { World, event, gap, settled } from './world.ts';

test('the application is told of a gap once, in its place, with what it really misses', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const seen: unknown[] = [];
  task.on('log', (e) => void seen.push(e.seq));
  task.on('gap', (e) => void seen.push([e.body.from_seq, e.seq, e.body.reason]));
  for (const e of [event(1, 0), event(2, 1), gap(2, 4, 1), gap(2, 4, 1), event(5, 4), event(6, 5, 'result')]) w.socket.give(e);
  assert.equal(await task.result, 42);
  assert.deepEqual(seen, [1, 2, [3, 4, 'expired'], 5]);
});

test('a task whose end is in a gap ends, and says that its end is missing', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(gap(1, 9, 0, { last: true }));
  await assert.rejects(task.result, { code: 'missed', message: /expired/ });
  assert.deepEqual(client.tasks, []);
  await settled();
  assert.deepEqual(w.socket.of('ack')[0]?.tasks.map((p) => p.next), [10]);
});

test('a reload while events and a gap wait for their turn: no position covers them, and all come again', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  for (const e of [event(1, 0), gap(3, 5, 2), event(6, 5), event(8, 7)]) w.socket.give(e);
  w.page('pagehide', false);
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [2]);

  const after = new World(w.storage, w.locks);
  const { client: again } = clientOn(after);
  const seen: unknown[] = [];
  again.on('task', (t) => void t.on('*', (e) => void seen.push(e.event === 'gap' ? [e.body.from_seq, e.seq] : e.event === 'reset' ? 0 : e.seq)));
  again.connect();
  await settled();
  await after.socket.welcome({ resumed: true, tasks: [{ task_id: 't', state: 'running' }] });
  assert.deepEqual(after.socket.of('hello')[0]?.tasks?.[0]?.next, 2);
  for (const e of [event(2, 1), gap(3, 5, 2), event(6, 5), event(7, 6), event(8, 7), event(9, 8, 'result')]) after.socket.give(e);
  await settled();
  assert.deepEqual(seen, [2, [3, 5], 6, 7, 8, 9]);
});
