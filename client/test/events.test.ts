import assert from 'node:assert/strict';
import { test } from 'node:test';
import { events } from '../src/index.ts';
import { openOn } from './page.ts';
import { World, event, settled } from './world.ts';

test('in a loop an event counts as had when the next one is asked for', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const loop = events(task);
  const first = loop.next();
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1, 'result'));
  assert.equal((await first).value?.event, 'log');
  await settled();
  assert.equal(task.position.next, 0);
  assert.equal((await loop.next()).value?.event, 'result');
  assert.equal(task.position.next, 2);
  assert.equal((await loop.next()).done, true);
  assert.equal(await task.result, 42);
});

test('a loop that is left early lets the task go on', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const loop = (async () => {
    for await (const e of events(task)) if (e.event === 'log') break;
  })();
  w.socket.give(event(1, 0));
  await loop;
  w.socket.give(event(2, 1, 'result'));
  assert.equal(await task.result, 42);
});

test('a handler that throws is reported, and the event counts as had', async () => {
  const w = new World();
  const { client, errors } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  task.on('log', () => {
    throw new Error('page bug');
  });
  task.on('result', () => Promise.reject(new Error('async page bug')));
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1, 'result'));
  await task.result;
  assert.deepEqual(errors.map(String), ['Error: page bug', 'Error: async page bug']);
});
