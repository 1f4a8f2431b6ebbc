import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presence, subscribe } from '../src/channels.ts';
import type { SubscribeOptions } from '../src/channels.ts';
import { Client } from '../src/client.ts';
import type { Message } from '../src/wire.ts';
import { openOn } from './page.ts';
import { World, settled } from './world.ts';

/** Writes down what a subscription tells. */
function scribe(): { told: string[]; options: SubscribeOptions } {
  const told: string[] = [];
  return {
    told,
    options: {
      onMessage: (m) => told.push(`${m.snapshot ? 'kept ' : ''}${m.body}`),
      onMissed: (m) => told.push(`${m.count} missed: ${m.reason}`),
      onSubscribed: (m) => told.push(`${m.partial ? 'partly ' : ''}subscribed`),
      onError: (e) => told.push(e.code),
    },
  };
}

const message = (body: string, channel = 'news'): Message => ({ type: 'message', channel, time: '2026-01-01T00:00:00.000Z', body });

/** Answers the latest subscribe. */
function answer(w: World, snapshot: number, more: { partial?: true } = {}): void {
  const { id, channel } = w.socket.of('subscribe').at(-1)!;
  w.socket.give({ type: 'subscribed', id: id!, channel, snapshot, ...more });
}

test('a subscription tells the snapshot, marked, and then what is new', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const { told, options } = scribe();
  subscribe(client, 'news', { ...options, grant: 'g' });
  assert.deepEqual(w.socket.of('subscribe').map(({ channel, grant }) => [channel, grant]), [['news', 'g']]);
  answer(w, 2, { partial: true });
  for (const body of ['one', 'two', 'three']) w.socket.give(message(body));
  w.socket.give(message('of another channel', 'other'));
  w.socket.give({ type: 'missed', channel: 'news', count: 3, reason: 'slow' });
  assert.deepEqual(told, ['partly subscribed', 'kept one', 'kept two', 'three', '3 missed: slow']);
});

test('what is missed in the midst of a snapshot is of it', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const { told, options } = scribe();
  subscribe(client, 'news', options);
  answer(w, 4);
  w.socket.give({ type: 'missed', channel: 'news', count: 3, reason: 'slow' });
  for (const body of ['four', 'five']) w.socket.give(message(body));
  answer(w, 4); // to nothing that was asked
  w.socket.give(message('six'));
  subscribe(client, 'other', options);
  answer(w, 9);
  w.socket.give({ type: 'missed', channel: 'other', count: 0, reason: 'lost' });
  w.socket.give(message('new', 'other'));
  assert.deepEqual(told, ['subscribed', '3 missed: slow', 'kept four', 'five', 'six', 'subscribed', '0 missed: lost', 'new']);
});

test('it subscribes again on each connection, also if there is none yet', async () => {
  const w = new World();
  const client = new Client({ platform: w.platform });
  const { told, options } = scribe();
  subscribe(client, 'news', options);
  client.connect();
  await settled();
  for (let i = 0; i < 3; i++) {
    await w.socket.welcome({ resumed: i > 0 });
    assert.deepEqual(w.socket.of('subscribe').map((m) => m.channel), ['news']);
    w.socket.give(message('of nothing that was answered'));
    answer(w, 1);
    w.socket.give(message(`at ${i}`));
    w.socket.cut();
    await w.advance(1000);
  }
  assert.deepEqual(told, ['subscribed', 'kept at 0', 'subscribed', 'kept at 1', 'subscribed', 'kept at 2']);
});

test('unsubscribe ends it at once', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const { told, options } = scribe();
  const off = subscribe(client, 'news', options);
  answer(w, 0);
  off();
  off();
  assert.deepEqual(w.socket.of('unsubscribe').map((m) => m.channel), ['news']);
  w.socket.give(message('late'));
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual([told, w.socket.of('subscribe').length], [['subscribed'], 0]);
});

test('a second subscriber of a channel begins it anew for both, and the last one to go ends it', async (t) => {
  const w = new World();
  const { client } = await openOn(w);
  const a = scribe();
  const b = scribe();
  const offA = subscribe(client, 'news', { ...a.options, onMessage: (m) => (a.options.onMessage(m), assert.equal(m.body, 'x')) });
  const thrown: unknown[] = [];
  t.mock.method(globalThis, 'queueMicrotask', (fn: () => void) => assert.throws(fn, (e) => !!thrown.push(e)));
  answer(w, 0);
  subscribe(client, 'news', scribe().options)();
  const offB = subscribe(client, 'news', b.options);
  w.socket.give({ type: 'subscribed', id: w.socket.of('subscribe')[1]!.id!, channel: 'news', snapshot: 0 });
  w.socket.give(message('of the one before'));
  answer(w, 1);
  w.socket.give(message('y'));
  assert.equal(thrown.length, 1, 'a handler that throws is told, and takes nothing from the others');
  assert.deepEqual([a.told, b.told], [['subscribed', 'subscribed', 'kept y'], ['subscribed', 'kept y']]);
  offA();
  assert.equal(w.socket.of('unsubscribe').length, 0);
  offB();
  assert.equal(w.socket.of('unsubscribe').length, 1);
});

test('a refusal is told; one that may not last is followed by another try', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const errors: unknown[] = [];
  client.on('error', (e) => errors.push(e));
  const { told, options } = scribe();
  subscribe(client, 'news', options);
  const refuse = (code: string, retryable: boolean) =>
    w.socket.give({ type: 'error', id: w.socket.of('subscribe').at(-1)!.id!, code, message: 'so', retryable });
  refuse('overloaded', true);
  await w.advance(99);
  assert.equal(w.socket.of('subscribe').length, 1);
  await w.advance(1);
  refuse('overloaded', true);
  await w.advance(199);
  assert.equal(w.socket.of('subscribe').length, 2);
  await w.advance(1);
  answer(w, 0);
  w.socket.give(message('one'));
  assert.deepEqual(told, ['overloaded', 'overloaded', 'subscribed', 'one']);

  subscribe(client, 'secret', options);
  refuse('forbidden', false);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('subscribe').map((m) => m.channel), ['news']);
  assert.deepEqual([told.at(-1), errors], ['forbidden', []]);
});

test('presence asks how many there are', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const asked = presence(client, 'news', { grant: 'g' });
  const { id, type, channel, grant } = w.socket.of('presence')[0]!;
  assert.deepEqual([type, channel, grant], ['presence', 'news', 'g']);
  w.socket.give({ type: 'presence', id: id!, channel, subscribers: 3, partial: true });
  assert.equal((await asked).subscribers, 3);

  const refused = presence(client, 'secret');
  w.socket.give({ type: 'error', id: w.socket.of('presence')[1]!.id!, code: 'forbidden', message: 'no', retryable: false });
  await assert.rejects(refused, { code: 'forbidden' });
  const lost = presence(client, 'news');
  w.socket.cut();
  await assert.rejects(lost, { code: 'unavailable', retryable: true });
  await assert.rejects(presence(client, 'news'), { code: 'unavailable', retryable: true });
});
