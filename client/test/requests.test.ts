import assert from 'node:assert/strict';
import { test } from 'node:test';
import { maxErrorChars, maxReplies, onRequest } from '../src/requests.ts';
import type { Request } from '../src/wire.ts';
import { openOn } from './page.ts';
import { World, settled } from './world.ts';

const request = (request_id: string, key = request_id, body: unknown = { amount: 12 }): Request =>
  ({ type: 'request', request_id, key, name: 'approve', body, timeout_ms: 30_000 });

test('a request is answered with what the handler returns, at once or later', async () => {
  const w = new World();
  const { client } = await openOn(w);
  onRequest(client, (r) => (r.key === 'b' ? Promise.resolve({ approved: r.name }) : r.key === 'c' ? undefined : r.body));
  for (const id of ['a', 'b', 'c']) w.socket.give(request(id));
  await settled();
  assert.deepEqual(w.socket.of('reply'), [
    { type: 'reply', request_id: 'a', body: { amount: 12 } },
    { type: 'reply', request_id: 'b', body: { approved: 'approve' } },
    { type: 'reply', request_id: 'c', body: null },
  ]);
});

test('what the handler throws is the answer, as long as it may be; so is a reply that does not fit', async () => {
  const w = new World();
  const { client } = await openOn(w);
  onRequest(client, async (r) => {
    if (r.key === 'big') return 'x'.repeat(70_000);
    throw r.key === 'bare' ? 'no' : new Error('日'.repeat(2000));
  });
  for (const id of ['long', 'bare', 'big']) w.socket.give(request(id));
  await settled();
  const errors = new Map(w.socket.of('reply').map((m) => [m.request_id, m.error]));
  assert.equal(errors.get('long')?.length, maxErrorChars);
  assert.ok(Buffer.byteLength(errors.get('long')!) <= 1024);
  assert.deepEqual([errors.get('bare'), errors.get('big')], ['no', 'the reply has more than 64 KiB']);
});

test('requests with one key are done once, and get the same reply, while it is remembered', async () => {
  const w = new World();
  const { client } = await openOn(w);
  let done = 0;
  onRequest(client, async () => ++done);
  w.socket.give(request('one', 'k'));
  w.socket.give(request('two', 'k'));
  await settled();
  w.socket.give(request('three', 'k'));
  await settled();
  assert.deepEqual(w.socket.of('reply').map((m) => [m.request_id, m.body]), [['one', 1], ['two', 1], ['three', 1]]);
  for (let i = 0; i < maxReplies; i++) w.socket.give(request(`other ${i}`));
  w.socket.give(request('four', 'k'));
  await settled();
  assert.deepEqual([w.socket.of('reply').at(-1)?.body, done], [maxReplies + 2, maxReplies + 2]);
});

test('a reply that finds no connection is sent on the next one', async () => {
  const w = new World();
  const { client } = await openOn(w);
  let finish = (_: unknown) => {};
  const off = onRequest(client, () => new Promise((resolve) => (finish = resolve)));
  w.socket.give(request('a'));
  w.socket.cut();
  finish(7);
  await w.advance(1000);
  assert.deepEqual(w.socket.of('reply'), []);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('reply'), [{ type: 'reply', request_id: 'a', body: 7 }]);
  off();
  w.socket.give(request('b'));
  finish(8);
  await settled();
  assert.equal(w.socket.of('reply').length, 1);
});
