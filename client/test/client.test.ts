import assert from 'node:assert/strict';
import { test } from 'node:test';
import { events } from '../src/index.ts';
import type { TaskError } from '../src/index.ts';
import { clientOn, names, openOn } from './page.ts';
import { World, event, meta, run1, settled } from './world.ts';

test('the first hello of a new session is empty, the socket is asked for with the subprotocol', async () => {
  const w = new World();
  const { client, states } = await openOn(w);
  assert.equal(w.socket.url, 'wss://ci.example/v1/ws');
  assert.equal(w.socket.protocol, 'wscluster.v1.json');
  assert.deepEqual(w.socket.sent, [{ type: 'hello' }]);
  assert.deepEqual(names(states), ['connecting', 'open']);
  assert.equal(client.meta?.server_id, 'i1-w1');
});

test('a build: submitted, accepted, followed, resolved', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('go-build', { ref: 'main' }, { taskId: 't' });
  assert.deepEqual(w.socket.of('submit'), [{ type: 'submit', id: 't', task_id: 't', kind: 'go-build', params: { ref: 'main' } }]);
  w.socket.give({ type: 'accepted', id: 't', task_id: 't', queue_position: 3 });
  assert.deepEqual(await task.accepted, { queuePosition: 3 });
  const seen: string[] = [];
  task.on('*', (s) => void seen.push(s.event));
  w.socket.give(event(1, 0, 'started'));
  w.socket.give(event(2, 1));
  w.socket.give(event(3, 2, 'result'));
  assert.equal(await task.result, 42);
  assert.deepEqual(seen, ['started', 'log', 'result']);
  assert.deepEqual(client.tasks, []);
  await settled();
  assert.deepEqual(w.socket.of('ack'), [{ type: 'ack', tasks: [{ task_id: 't', attempt: 1, run_id: run1, next: 4 }] }]);
});

test('a failed build rejects with its code', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0, 'error', { body: { code: 'failed', message: 'exit status 2', retryable: true, last_line: 0, timestamp: '' } }));
  await assert.rejects(task.result, (e: TaskError) => e.code === 'failed' && e.retryable && e.message === 'exit status 2');
});

test('the route ticket goes into the URL only if asked for, the token never', async () => {
  for (const [affinity, want] of [['route', 'ws://127.0.0.1:9/x?a=1&route=route-1'], ['cookie', 'ws://127.0.0.1:9/x?a=1']] as const) {
    const w = new World();
    await openOn(w, { affinity, url: 'http://127.0.0.1:9/x?a=1' });
    assert.equal(w.sockets[0]!.url, 'ws://127.0.0.1:9/x?a=1');
    w.socket.cut();
    await w.advance(1000);
    assert.equal(w.sockets[1]!.url, want);
  }
});

test('auth is asked for anew for each socket; its failure is a retry', async () => {
  const w = new World();
  let n = 0;
  const { client, errors } = clientOn(w, {
    auth: () => {
      if (++n === 2) throw new Error('login is away');
      return 'jwt-' + n;
    },
  });
  client.connect();
  await settled();
  await w.socket.welcome();
  w.socket.cut();
  await w.advance(1000);
  assert.equal(errors.length, 1);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.sockets.map((s) => s.of('hello')[0]?.auth), ['jwt-1', 'jwt-3']);
});

test('a renewed token is kept for the next hello', async () => {
  const w = new World();
  const { states } = await openOn(w);
  w.socket.give(meta({ token: 'token-9' }));
  assert.deepEqual(names(states), ['connecting', 'open']);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.equal(w.socket.of('hello')[0]?.token, 'token-9');
});

test('what the server no longer knows is lost, and says so', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give({ type: 'accepted', task_id: 't' });
  const loop = (async () => {
    for await (const _ of events(task));
  })();
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ reason: 'expired', tasks: [{ task_id: 't', state: 'unknown' }] });
  await assert.rejects(task.result, { code: 'lost', retryable: true });
  await loop;
  assert.deepEqual(client.tasks, []);
});

test('close acknowledges, closes and stays closed', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0));
  client.close();
  assert.equal(w.socket.of('ack').length, 1);
  assert.equal(w.socket.closedWith, 1000);
  w.window.dispatchEvent(new Event('online'));
  w.page('pageshow', true);
  await w.advance(100_000);
  assert.equal(w.sockets.length, 1);
  assert.equal(w.timers, 0);
});

test('close while connecting opens nothing', async () => {
  const w = new World();
  const { client } = clientOn(w);
  client.connect();
  client.close();
  await settled();
  assert.equal(w.sockets.length, 0);
});
