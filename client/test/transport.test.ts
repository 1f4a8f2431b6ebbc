import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxSocketAgainMs, socketAgainMs } from '../src/client.ts';
import type { Options, State } from '../src/client.ts';
import { openMs } from '../src/link.ts';
import { clientOn } from './page.ts';
import { World, event, run1, settled } from './world.ts';

/** A client whose sockets are blocked, on its stream. */
async function blockedOn(world: World, options: Options = {}) {
  const all = clientOn(world, options);
  all.client.connect();
  for (let i = 0; i < 2; i++) {
    await settled();
    world.socket.cut();
    await world.advance(100 << i);
  }
  await world.stream.welcome();
  return all;
}

const streams = (w: World) => w.posts.filter((p) => p.url.endsWith('/events')).length;
const opened = (states: State[]) => states.flatMap((s) => (s.name === 'open' ? [s.transport] : []));

test('WebSocket comes first, and a stream where two sockets in a row were refused', async () => {
  const w = new World();
  const { states } = await blockedOn(w);
  assert.equal(w.sockets.length, 2);
  assert.deepEqual(opened(states), ['sse']);
});

test('a socket that hangs while it opens counts as refused after 5 s', async () => {
  const w = new World();
  const { client } = clientOn(w);
  client.connect();
  await w.advance(2 * openMs + 300);
  assert.deepEqual([w.sockets.length, streams(w)], [2, 1]);
  assert.ok(w.sockets.every((s) => s.closed));
});

test('a socket that lived is no reason for a stream, however it ended', async () => {
  const w = new World();
  const { client } = clientOn(w);
  client.connect();
  for (let i = 0; i < 4; i++) {
    await settled();
    await w.socket.welcome({ resumed: i > 0 });
    await w.advance(5000);
    w.socket.cut();
    await w.advance(1000);
    w.socket.cut(); // refused, once
    await w.advance(1000);
  }
  assert.deepEqual([w.sockets.length, streams(w)], [9, 0]);
});

test('where neither comes to life they take turns', async () => {
  const w = new World();
  const { client } = clientOn(w);
  client.connect();
  const tried: string[] = [];
  for (let i = 0, sockets = 0; i < 7; i++) {
    await settled();
    if (w.sockets.length > sockets) {
      sockets = w.sockets.length;
      tried.push('ws');
      w.socket.cut();
    } else {
      tried.push('sse');
      await w.stream.answer(502);
    }
    await w.advance(4999);
  }
  assert.deepEqual(tried, ['ws', 'ws', 'sse', 'ws', 'sse', 'ws', 'sse']);
});

test('a client told to use one transport uses no other', async () => {
  for (const transport of ['ws', 'sse'] as const) {
    const w = new World();
    const { client } = clientOn(w, { transport });
    client.connect();
    for (let i = 0; i < 5; i++) {
      await settled();
      if (transport === 'ws') w.socket.cut();
      else await w.stream.answer(502);
      await w.advance(4999);
    }
    assert.equal(w.sockets.length > 0, transport === 'ws');
    assert.equal(streams(w) > 0, transport === 'sse');
  }
});

test('a stream that ends is followed by a stream, and a reload begins with one', async () => {
  const w = new World();
  await blockedOn(w);
  await w.stream.end();
  await w.advance(1000);
  assert.deepEqual([w.sockets.length, streams(w)], [2, 2]);

  const after = new World(w.storage);
  const { client } = clientOn(after);
  client.connect();
  await settled();
  assert.deepEqual([after.sockets.length, streams(after)], [0, 1]);
});

test('WebSocket is tried again after 1 min, 2 min, … 10 min, and the stream does not notice', async () => {
  const w = new World();
  const { states } = await blockedOn(w);
  const before = states.length;
  const beat = async (ms: number) => {
    for (; ms > 0; ms -= 15_000) {
      await w.advance(Math.min(ms, 15_000));
      await w.stream.write(':\n\n');
    }
  };
  for (let n = 3, ms = socketAgainMs; n < 10; n++, ms = Math.min(2 * ms, maxSocketAgainMs)) {
    await beat(ms - 1);
    assert.equal(w.sockets.length, n - 1, `attempt ${n}`);
    await beat(1);
    assert.equal(w.sockets.length, n, `attempt ${n}`);
    if (n % 2) w.socket.cut();
    else w.socket.onopen?.(); // and brings nothing
  }
  assert.equal(states.length, before);
  assert.equal(streams(w), 1);
});

test('the stream lives until the socket has its socket_meta; what both bring comes once', async () => {
  const w = new World();
  const { client, states } = await blockedOn(w);
  w.taking = true;
  const task = client.submit('make', {}, { taskId: 't' });
  const seen: number[] = [];
  task.on('log', (e) => void seen.push(e.seq));
  await w.stream.give(event(1, 0));
  for (let i = 0; i < 4; i++) {
    await w.advance(15_000);
    await w.stream.write(':\n\n');
  }
  w.socket.onopen?.();
  assert.deepEqual(w.socket.sent, [{ type: 'hello', token: 'token-1', tasks: [{ task_id: 't', attempt: 1, run_id: run1, next: 2 }] }]);
  await w.stream.give(event(2, 1));
  assert.equal(w.stream.aborted, false);

  await w.socket.welcome({ resumed: true, epoch: 2, token: 'token-2' });
  assert.equal(w.stream.aborted, true);
  assert.deepEqual(w.socket.of('confirm'), [{ type: 'confirm', epoch: 2 }]);
  assert.deepEqual(opened(states), ['sse', 'ws']);
  assert.ok(!states.slice(-2).some((s) => s.name === 'waiting'));
  w.socket.give(event(2, 1));
  w.socket.give(event(3, 2));
  assert.deepEqual(seen, [1, 2, 3]);
  task.cancel();
  assert.equal(w.socket.of('cancel').length, 1);
  for (let i = 0; i < 20; i++) {
    await w.advance(15_000);
    w.socket.give({ type: 'pong' });
  }
  assert.equal(w.sockets.length, 3, 'nothing more is tried');
  w.socket.cut();
  await w.advance(1000);
  assert.deepEqual([w.sockets.length, streams(w)], [4, 1], 'it stays with WebSocket');
});

test('a socket that is welcomed to another session than the stream has is given up', async () => {
  const w = new World();
  const { states } = await blockedOn(w);
  for (let i = 0; i < 4; i++) {
    await w.advance(15_000);
    await w.stream.write(':\n\n');
  }
  await w.socket.welcome({ client_id: 'stranger', token: 'other', resumed: false });
  assert.equal(w.socket.closed, true);
  assert.deepEqual([w.stream.aborted, states.at(-1)?.name], [false, 'open']);
});

test('a stream that ends while a socket is tried takes the attempt with it; close leaves nothing', async () => {
  const w = new World();
  const { client } = await blockedOn(w);
  for (let i = 0; i < 4; i++) {
    await w.advance(15_000);
    await w.stream.write(':\n\n');
  }
  const attempt = w.socket;
  attempt.onopen?.();
  await w.stream.end();
  assert.equal(attempt.closed, true);
  await w.advance(200);
  await w.stream.welcome({ resumed: true });
  await w.messages.at(-1)!.answer(202);
  client.close();
  assert.equal(w.timers, 0);
});
