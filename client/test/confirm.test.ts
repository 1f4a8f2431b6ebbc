import assert from 'node:assert/strict';
import { test } from 'node:test';
import { names, openOn } from './page.ts';
import { World, event, meta, settled } from './world.ts';

test('a resumed session is confirmed when its token is stored, before anything else is said', async () => {
  const w = new World();
  const { client } = await openOn(w);
  assert.deepEqual(w.socket.of('confirm'), [], 'a new session is not confirmed');
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0)); // to be acknowledged
  client.submit('make', {}, { taskId: 'u' }); // without an answer
  w.socket.cut();
  await w.advance(1000);
  client.on('state', (s) => s.name === 'open' && client.submit('make', {}, { taskId: 'v' }));
  const send = w.socket.send.bind(w.socket);
  let kept: string | null = null;
  w.socket.send = (data) => {
    if (data.includes('confirm')) kept = w.storage.getItem('wscluster:meta');
    send(data);
  };
  await w.socket.welcome({ resumed: true, epoch: 7, token: 'token-7' });
  await w.advance(1000);
  assert.deepEqual(w.socket.sent.slice(0, 2).map((m) => m.type), ['hello', 'confirm']);
  assert.deepEqual(new Set(w.socket.sent.slice(2).map((m) => (m.type === 'submit' ? m.task_id : m.type))), new Set(['v', 'u', 'ack']));
  assert.deepEqual(w.socket.of('confirm'), [{ type: 'confirm', epoch: 7 }]);
  assert.equal((JSON.parse(kept!) as { token: string }).token, 'token-7');
  w.socket.give(meta({ resumed: true, epoch: 7, token: 'token-8' }));
  await settled();
  assert.equal(w.socket.of('confirm').length, 1, 'a renewal is not confirmed');
});

test('an error to a confirm kills nothing', async () => {
  for (const code of ['unexpected', 'unknown_type']) {
    const w = new World();
    const { client, states, errors } = await openOn(w);
    const task = client.submit('make', {}, { taskId: 't' });
    w.socket.give({ type: 'accepted', task_id: 't' });
    w.socket.cut();
    await w.advance(1000);
    await w.socket.welcome({ resumed: true });
    w.socket.give({ type: 'error', code, message: 'confirm?', retryable: false });
    w.socket.give(event(1, 0, 'result'));
    assert.equal(await task.result, 42);
    assert.deepEqual([names(states).at(-1), errors.length], ['open', 1]);
  }
});

test('a session is not given up for a hello that came too late', async () => {
  const w = new World();
  const { client, states } = await openOn(w);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ client_id: 'stranger', token: 'token-2' }); // not resumed, and no reason why
  assert.equal(client.meta?.client_id, meta().client_id);
  assert.equal(names(states).at(-1), 'waiting');
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('hello'), [{ type: 'hello', token: 'token-1' }]);
  assert.equal(names(states).at(-1), 'open');
});
