import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client } from '../src/index.ts';
import { claimWaitMs } from '../src/claim.ts';
import { clientOn, openOn } from './page.ts';
import { World, event, run1, settled } from './world.ts';
import type { FakeStorage } from './world.ts';

test('after a reload the open tasks come back and go on behind what was had', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  task.on('log', (e) => (e.seq === 3 ? new Promise(() => {}) : undefined));
  for (let i = 1; i <= 4; i++) w.socket.give(event(i, i - 1));
  w.page('pagehide', false);
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [3], 'told on the way out');

  const after = new World(w.storage, w.locks);
  const { client: again, restored } = clientOn(after);
  const seen: number[] = [];
  again.on('task', (t) => void t.on('log', (e) => void seen.push(e.seq)));
  again.connect();
  await settled();
  assert.deepEqual(restored.map((t) => [t.id, t.kind, t.position.next]), [['t', 'make', 3]]);
  await after.socket.welcome({ resumed: true, tasks: [{ task_id: 't', state: 'running' }] });
  assert.deepEqual(after.socket.of('hello'), [
    { type: 'hello', token: 'token-1', tasks: [{ task_id: 't', attempt: 1, run_id: run1, next: 3 }] },
  ]);
  for (let i = 2; i <= 4; i++) after.socket.give(event(i, i - 1));
  after.socket.give(event(5, 4, 'result'));
  assert.equal(await restored[0]!.result, 42);
  assert.deepEqual(seen, [3, 4]);
  const third = clientOn(new World(w.storage, w.locks));
  after.page('pagehide', false);
  third.client.connect();
  await settled();
  assert.deepEqual(third.restored, []);
});

test('a duplicated page starts its own session; a reload waits for the page before to let go', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give({ type: 'accepted', task_id: 't' });

  const copy = new World(w.storage.copy(), w.locks);
  const duplicate = clientOn(copy);
  duplicate.client.connect();
  await copy.advance(claimWaitMs);
  await copy.socket.welcome({ client_id: 'c2', token: 'token-2' });
  assert.deepEqual(copy.socket.of('hello'), [{ type: 'hello' }]);
  assert.deepEqual(duplicate.restored, []);
  assert.equal([...Array(copy.storage.length).keys()].some((i) => copy.storage.key(i)!.includes('task:')), false);

  const reload = new World(w.storage, w.locks);
  const after = clientOn(reload);
  after.client.connect();
  await reload.advance(claimWaitMs / 2);
  assert.equal(reload.sockets.length, 0);
  w.page('pagehide', false);
  await settled();
  await reload.socket.welcome({ resumed: true });
  assert.equal(after.restored.length, 1);
});

test('without Web Locks a stored session is taken up as it is', async () => {
  const w = new World();
  await openOn(w);
  const after = new World(w.storage);
  const client = new Client({ platform: { ...after.platform, locks: undefined } });
  client.connect();
  await settled();
  await after.socket.welcome({ resumed: true });
  assert.equal(after.socket.of('hello')[0]?.token, 'token-1');
});

test('a full storage is told once; the session goes on in memory, and a reload finds none', async () => {
  const w = new World();
  const { client, errors } = await openOn(w);
  w.storage.full = true;
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1));
  assert.equal(errors.length, 1);
  assert.equal((w.storage as FakeStorage).length, 0);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.equal(w.socket.of('hello')[0]?.token, 'token-1');
  assert.equal(w.socket.of('hello')[0]?.tasks?.[0]?.next, 3);
  assert.equal(task.position.next, 3);
});

test('a page kept for "back" closes its socket, and comes back when it is shown again', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const old = w.socket;
  w.page('pagehide', true);
  assert.equal(old.closed, true);
  assert.equal(client.state.name, 'waiting');
  await w.advance(60_000);
  assert.equal(w.sockets.length, 1);
  w.page('pageshow', true);
  await settled();
  await w.socket.welcome({ resumed: true });
  old.cut(1006);
  assert.equal(client.state.name, 'open');
  assert.equal(w.sockets.length, 2);
});
