import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ackMs } from '../src/client.ts';
import type { Options } from '../src/client.ts';
import { maxPosts, maxQueued, postMs } from '../src/stream.ts';
import { clientOn } from './page.ts';
import { World, event, meta, run1, settled } from './world.ts';

/** A client on an event stream that has been welcomed. */
async function streamOn(world: World, options: Options = {}) {
  const all = clientOn(world, { transport: 'sse', ...options });
  all.client.connect();
  await settled();
  await world.stream.welcome({ resumed: world.storage.length > 0 });
  return all;
}

const sent = (w: World) => w.messages.map((p) => p.message);

test('a stream is the response to the hello; what else is said is posted with the token and the route', async () => {
  const w = new World();
  const { client, states } = await streamOn(w);
  assert.equal(w.stream.url, 'https://ci.example/v1/events');
  assert.equal(w.stream.init.method, 'POST');
  assert.deepEqual(w.stream.message, { type: 'hello' });
  assert.equal(w.stream.header('X-Route'), null);
  assert.deepEqual(states.at(-1), { name: 'open', meta: meta(), transport: 'sse' });
  assert.equal(w.sockets.length, 0);

  client.submit('make', {}, { taskId: 't' });
  const [post] = w.messages;
  assert.equal(post?.url, 'https://ci.example/v1/messages');
  assert.deepEqual(post.message, { type: 'submit', id: 't', task_id: 't', kind: 'make', params: {} });
  assert.deepEqual([post.header('X-Socket-Meta'), post.header('X-Route'), post.header('Content-Type')], ['token-1', 'route-1', 'application/json']);
});

test('a stream that resumes shows its token in the hello, where it stands, and confirms', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  client.submit('make', {}, { taskId: 't' });
  await w.messages[0]!.answer(202);
  await w.stream.give(event(1, 0));
  await w.stream.end();
  await w.advance(1000);
  assert.deepEqual(w.stream.message, { type: 'hello', token: 'token-1', tasks: [{ task_id: 't', attempt: 1, run_id: run1, next: 2 }] });
  assert.deepEqual([w.stream.header('X-Route'), w.stream.header('X-Socket-Meta')], ['route-1', null]);
  await w.stream.welcome({ resumed: true, epoch: 2, token: 'token-2' });
  assert.deepEqual(w.messages.at(-1)?.message, { type: 'confirm', epoch: 2 });
  assert.equal(w.messages.at(-1)?.header('X-Socket-Meta'), 'token-2');
});

test('messages are cut out of the bytes as they come; comments and other fields are passed over', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const lines: string[] = [];
  task.on('log', (e) => void lines.push(...e.body.lines));
  const of = (seq: number, line: string) => `data: ${JSON.stringify(event(seq, seq - 1, 'log', { body: { first_line: seq, lines: [line] } } as never))}\n\n`;
  const bytes = new TextEncoder().encode(`:\n\nid: 7\n${of(1, 'one')}:\n\n${of(2, 'größer 日本')}${of(3, 'three').replaceAll('\n', '\r\n')}`);
  for (const b of bytes) await w.stream.write(Uint8Array.of(b));
  assert.deepEqual(lines, ['one', 'größer 日本', 'three']);
});

test('messages are posted one at a time, in order', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  for (const taskId of ['a', 'b', 'c']) client.submit('make', {}, { taskId });
  assert.equal(w.messages.length, 1);
  await w.messages[0]!.answer(202);
  assert.equal(w.messages.length, 2);
  await w.messages[1]!.answer(202);
  await w.messages[2]!.answer(202);
  assert.deepEqual(sent(w).map((m) => (m as { task_id: string }).task_id), ['a', 'b', 'c']);
});

test('acknowledgements are collected while a message is on its way', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  client.submit('make', {}, { taskId: 't' });
  for (let i = 1; i <= 100; i++) await w.stream.give(event(i, i - 1));
  await w.advance(1000);
  assert.equal(w.messages.length, 1);
  await w.messages[0]!.answer(202);
  await w.advance(ackMs);
  assert.deepEqual(w.messages[1]?.message, { type: 'ack', tasks: [{ task_id: 't', attempt: 1, run_id: run1, next: 101 }] });
  assert.equal(w.messages.length, 2);
});

test('a message that found nobody is sent again, with jitter, and what was said behind it waits', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  client.submit('make', {}, { taskId: 'a' });
  client.submit('make', {}, { taskId: 'b' });
  w.messages[0]!.cut();
  await w.advance(99);
  assert.equal(w.messages.length, 1);
  await w.advance(1); // random is 0.5
  await w.messages[1]!.answer(503);
  await w.advance(200);
  await w.messages[2]!.answer(202);
  await w.messages[3]!.answer(202);
  assert.deepEqual(sent(w).map((m) => (m as { task_id: string }).task_id), ['a', 'a', 'a', 'b']);
});

test('a message that finds nobody again and again ends the stream, and all is asked for on the next', async () => {
  const w = new World();
  const { client, states } = await streamOn(w);
  client.submit('make', {}, { taskId: 't' });
  for (let i = 0; i <= maxPosts; i++) {
    w.messages.at(-1)!.cut();
    await w.advance(100 << (i + 1));
  }
  assert.equal(w.messages.length, maxPosts + 1);
  assert.ok(states.some((s) => s.name === 'waiting' && s.code === 1006));
  assert.equal(w.posts.filter((p) => p.url.endsWith('/events')).length, 2);
  await w.stream.welcome({ resumed: true });
  await w.messages.at(-1)!.answer(202);
  assert.deepEqual(sent(w).slice(-2).map((m) => m.type), ['confirm', 'submit']);
});

test('a message without an answer for 10 s ends the stream', async () => {
  const w = new World();
  const { client, states } = await streamOn(w);
  client.submit('make', {}, { taskId: 't' });
  await w.advance(postMs - 1);
  assert.equal(states.at(-1)?.name, 'open');
  await w.advance(1);
  assert.equal(states.at(-1)?.name, 'waiting');
  assert.equal(w.stream.aborted, true);
});

test('a server that knows no stream of this token makes the client come back; a message that it refuses is over', async () => {
  for (const status of [401, 403, 404, 409]) {
    const w = new World();
    const { client, states } = await streamOn(w);
    client.submit('make', {}, { taskId: 't' });
    await w.messages[0]!.answer(status);
    assert.equal(states.at(-1)?.name, 'waiting', `${status}`);
  }
  for (const status of [400, 413]) {
    const w = new World();
    const { client, states } = await streamOn(w);
    client.submit('make', {}, { taskId: 'a' });
    client.submit('make', {}, { taskId: 'b' });
    await w.messages[0]!.answer(status);
    assert.equal(w.messages.length, 2, `${status}`);
    assert.equal(states.at(-1)?.name, 'open');
  }
});

test('more messages than may wait end the stream', async () => {
  const w = new World();
  const { client, states } = await streamOn(w);
  for (let i = 0; i < maxQueued; i++) client.send({ type: 'ping' });
  assert.equal(states.at(-1)?.name, 'open');
  client.send({ type: 'ping' });
  assert.equal(states.at(-1)?.name, 'waiting');
});

test('a frame without an end ends the stream', async () => {
  const w = new World();
  const { states } = await streamOn(w);
  const piece = 'data: '.padEnd(1 << 18, 'x');
  for (let i = 0; i < 3; i++) await w.stream.write(piece);
  assert.equal(states.at(-1)?.name, 'open');
  await w.stream.write(piece);
  assert.equal(states.at(-1)?.name, 'waiting');
});

test('each byte is a sign of life; a stream without one is asked, and given up', async () => {
  const w = new World();
  const { states } = await streamOn(w);
  for (let i = 0; i < 10; i++) {
    await w.advance(15_000);
    await w.stream.write(':\n\n');
  }
  assert.equal(w.messages.length, 0);
  await w.advance(29_999);
  assert.deepEqual([w.messages.length, states.at(-1)?.name], [0, 'open']);
  await w.advance(1);
  assert.deepEqual(sent(w), [{ type: 'ping' }]);
  await w.messages[0]!.answer(202);
  await w.advance(2_000);
  assert.equal(states.at(-1)?.name, 'waiting');
});

test('a stream that is refused or brings nothing is tried again', async () => {
  const w = new World();
  const { client, states } = clientOn(w, { transport: 'sse' });
  client.connect();
  await settled();
  await w.stream.answer(503);
  assert.deepEqual(states.at(-1), { name: 'waiting', attempt: 1, delayMs: 100, code: 1006, reason: 'HTTP 503' });
  await w.advance(100);
  await w.stream.answer(200);
  await w.advance(10_000);
  assert.equal(states.at(-1)?.name, 'waiting');
});

test('close acknowledges what the application has and ends the stream; bye says when to return', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  client.submit('make', {}, { taskId: 't' });
  await w.messages[0]!.answer(202);
  await w.stream.give(event(1, 0));
  client.close();
  assert.equal(sent(w).at(-1)?.type, 'ack');
  assert.equal(w.messages.at(-1)?.init.keepalive, true);
  assert.equal(w.stream.aborted, true);
  assert.equal(w.timers, 1); // of the acknowledgement
  await w.messages.at(-1)!.answer(202);
  assert.equal(w.timers, 0);

  const other = new World();
  const { states } = await streamOn(other);
  await other.stream.give({ type: 'bye', code: 1012, reason: 'drain', retry_after_ms: 2500 });
  await other.stream.end();
  assert.deepEqual(states.at(-1), { name: 'waiting', attempt: 1, delayMs: 2500, code: 1012, reason: 'drain' });
});

test('a large message does not ask to outlive the page, which browsers allow small ones only', async () => {
  const w = new World();
  const { client } = await streamOn(w);
  client.submit('make', { x: 'x'.repeat(10_000) });
  assert.equal(w.messages[0]?.init.keepalive, false);
});
