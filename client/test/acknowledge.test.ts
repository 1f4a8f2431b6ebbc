import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openOn } from './page.ts';
import { World, event, run2, settled } from './world.ts';

test('a position is acknowledged at once, the next 50 ms later, and sooner after 32 events', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  const told = async () => (await settled(), w.socket.of('ack').map((a) => a.tasks[0]?.next));
  w.socket.give(event(1, 0));
  assert.deepEqual(await told(), [2]);
  await w.advance(30);
  w.socket.give(event(2, 1));
  w.socket.give(event(3, 2));
  await w.advance(19);
  assert.deepEqual(await told(), [2]);
  await w.advance(1);
  assert.deepEqual(await told(), [2, 4], 'counted from the acknowledgement before, not from the event');
  for (let i = 4; i <= 34; i++) w.socket.give(event(i, i - 1));
  assert.deepEqual(await told(), [2, 4]);
  w.socket.give(event(35, 34));
  assert.deepEqual(await told(), [2, 4, 36]);
  w.socket.give(event(36, 35));
  await w.advance(49);
  assert.deepEqual(await told(), [2, 4, 36], 'counted from the one that 32 events made');
  await w.advance(1);
  assert.deepEqual(await told(), [2, 4, 36, 37]);
  await w.advance(50);
  w.socket.give(event(37, 36));
  assert.deepEqual(await told(), [2, 4, 36, 37, 38]);
  await w.advance(10_000);
  assert.equal((await told()).length, 5);
});

test('what comes in one turn is acknowledged in one message', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  client.submit('make', {}, { taskId: 'u' });
  for (let i = 40; i > 0; i--) w.socket.give(event(i, i - 1)); // 40 are ready with the last
  w.socket.give(event(1, 0, 'log', { task_id: 'u' }));
  await w.advance(1000);
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks.map((p) => [p.task_id, p.next])), [[['t', 41], ['u', 2]]]);
});

test('a clock that is set back holds no acknowledgement', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0));
  await settled();
  w.now -= 3_600_000;
  w.socket.give(event(2, 1));
  await settled();
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [2, 3]);
});

test('an acknowledgement never covers what waits for its turn or for the application', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  let finish = () => {};
  task.on('log', (e) => (e.seq === 2 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
  const last = async () => (await w.advance(100), w.socket.of('ack').at(-1)?.tasks[0]?.next);
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1));
  w.socket.give(event(3, 2));
  w.socket.give(event(5, 4));
  assert.equal(await last(), 2);
  finish();
  assert.equal(await last(), 4);
  w.socket.give(event(4, 3));
  assert.equal(await last(), 6);
});

test('duplicates and events of unknown or finished tasks are acknowledged, and not handed out', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  let count = 0;
  task.on('*', () => void count++);
  for (const _ of [1, 2, 3]) w.socket.give(event(1, 0));
  w.socket.give(event(2, 1, 'result'));
  w.socket.give(event(2, 1, 'result'));
  w.socket.give(event(8, 7, 'log', { task_id: 'stranger' }));
  w.socket.give(event(7, 6, 'log', { task_id: 'stranger' }));
  w.socket.give(event(9, 8, 'progress', { task_id: 'stranger' }));
  await settled();
  assert.equal(count, 2);
  assert.deepEqual(w.socket.of('ack')[0]?.tasks.map((p) => [p.task_id, p.next]), [['t', 3], ['stranger', 9]]);
});

test('a run that was replaced does not fill the window: what is dropped of it is acknowledged', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(3, 2, 'log', { attempt: 2, run_id: run2 }));
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1));
  await settled();
  assert.deepEqual(w.socket.of('ack'), [{ type: 'ack', tasks: [{ task_id: 't', attempt: 2, run_id: run2, next: 1 }] }]);
});
