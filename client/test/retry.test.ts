import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clientOn, names, openOn } from './page.ts';
import { World, settled } from './world.ts';

test('the client comes back with jitter below 200, 400, 800 ms, and a steady socket begins anew', async () => {
  const w = new World();
  const { states } = await openOn(w, { transport: 'ws' });
  for (let i = 0; i < 3; i++) {
    w.socket.cut();
    await w.advance(1_000);
  }
  await w.socket.welcome({ resumed: true });
  await w.advance(5_000);
  w.socket.cut();
  const waits = states.filter((s) => s.name === 'waiting').map((s) => [s.attempt, s.delayMs]);
  assert.deepEqual(waits, [[1, 100], [2, 200], [3, 400], [1, 100]]);
});

test('a client told to stop stops, and says why; connect begins again', async () => {
  for (const code of [1008, 4000, 4001]) {
    const w = new World();
    const { client, states } = await openOn(w);
    w.socket.give({ type: 'bye', code, reason: 'told' });
    w.socket.cut();
    await w.advance(100_000);
    assert.deepEqual(states.at(-1), { name: 'closed', code, reason: 'told' });
    assert.equal(w.sockets.length, 1);
    assert.equal(w.timers, 0);
    client.connect();
    await settled();
    assert.equal(w.sockets.length, 2);
  }
});

test('bye names the time of the return, and neither online nor a click on the tab hurries it', async () => {
  const w = new World();
  const { states } = await openOn(w);
  w.socket.give({ type: 'bye', code: 1012, reason: 'drain', retry_after_ms: 2500 });
  w.socket.cut(1012);
  assert.deepEqual(states.at(-1), { name: 'waiting', attempt: 1, delayMs: 2500, code: 1012, reason: 'drain' });
  w.window.dispatchEvent(new Event('online'));
  w.document.dispatchEvent(new Event('visibilitychange'));
  await w.advance(2499);
  assert.equal(w.sockets.length, 1);
  await w.advance(1);
  assert.equal(w.sockets.length, 2);
});

test('4208 and 4200 resume at once, 4101 backs off', async () => {
  for (const [code, sockets] of [[4208, 2], [4200, 2], [4101, 1]] as const) {
    const w = new World();
    await openOn(w);
    w.socket.give({ type: 'bye', code, reason: 'told' });
    w.socket.cut(code);
    await w.advance(0);
    assert.equal(w.sockets.length, sockets, String(code));
  }
});

test('online cuts a wait short', async () => {
  const w = new World();
  w.random = 0.99;
  await openOn(w);
  w.socket.cut();
  w.window.dispatchEvent(new Event('online'));
  await settled();
  assert.equal(w.sockets.length, 2);
  await w.advance(1000);
  assert.equal(w.sockets.length, 2, 'the wait itself is over');
});

test('maxRetries ends the row', async () => {
  const w = new World();
  const { states } = clientOn(w, { maxRetries: 2 });
  const { client, states: seen } = clientOn(w, { maxRetries: 2, transport: 'ws' });
  client.connect();
  for (let i = 0; i < 3; i++) {
    await settled();
    w.socket.cut();
    await w.advance(60_000);
  }
  assert.deepEqual(names(seen), ['connecting', 'waiting', 'connecting', 'waiting', 'connecting', 'closed']);
  assert.equal(w.sockets.length, 3);
  assert.deepEqual(states, []);
});
