import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientOn, openOn } from './page.ts';
import { World, event } from './world.ts';

test('a socket that does not open within 5 s, or is not welcomed within 10 s, is given up', async () => {
  const w = new World();
  const { client, states } = clientOn(w);
  client.connect();
  await w.advance(4_999);
  assert.equal(states.at(-1)?.name, 'connecting');
  await w.advance(1);
  assert.equal(states.at(-1)?.name, 'waiting');
  await w.advance(100);
  w.socket.onopen?.();
  await w.advance(9_999);
  assert.equal(states.at(-1)?.name, 'connecting');
  await w.advance(1);
  assert.equal(states.at(-1)?.name, 'waiting');
  assert.equal(w.socket.closed, true);
});

test('a silent socket is asked after two heartbeats, and given up 2 s later', async () => {
  const w = new World();
  await openOn(w);
  const { socket } = w;
  await w.advance(29_999);
  assert.equal(socket.of('ping').length, 0);
  await w.advance(1);
  assert.equal(socket.of('ping').length, 1);
  socket.give({ type: 'pong' });
  await w.advance(29_000);
  assert.equal(w.sockets.length, 1);
  await w.advance(3_100);
  assert.equal(socket.closed, true);
  assert.equal(w.sockets.length, 2);
});

test('coming online asks at once', async () => {
  const w = new World();
  const { states } = await openOn(w);
  w.window.dispatchEvent(new Event('online'));
  w.document.dispatchEvent(new Event('visibilitychange'));
  assert.equal(w.socket.of('ping').length, 1);
  await w.advance(2_000);
  assert.equal(states.at(-1)?.name, 'waiting');
});

test('what a socket says after its end is not heard', async () => {
  const w = new World();
  const { client, states } = await openOn(w);
  const old = w.socket;
  client.submit('make', {}, { taskId: 't' });
  w.window.dispatchEvent(new Event('online'));
  await w.advance(2_500);
  await w.socket.welcome({ resumed: true });
  const before = states.length;
  old.give(event(1, 0));
  old.give({ type: 'bye', code: 4000, reason: 'late' });
  old.cut(4000);
  await w.advance(100);
  assert.equal(states.length, before);
  assert.equal(client.tasks[0]?.position.next, 0);
});
