import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client, TaskError, events } from '../src/index.ts';
import type { Options, State, Task } from '../src/index.ts';
import { claimWaitMs } from '../src/claim.ts';
import { maxOver } from '../src/client.ts';
import { World, event, gap, meta, run1, run2, settled } from './world.ts';
import type { FakeStorage } from './world.ts';

/** A client on its page; states and errors are kept as they come. */
function clientOn(world: World, options: Options = {}) {
  const client = new Client({ ...options, platform: world.platform });
  const states: State[] = [];
  const restored: Task[] = [];
  const errors: unknown[] = [];
  client.on('state', (s) => states.push(s));
  client.on('task', (t) => restored.push(t));
  client.on('error', (e) => errors.push(e));
  return { client, states, restored, errors };
}

async function openOn(world: World, options: Options = {}) {
  const all = clientOn(world, options);
  all.client.connect();
  await settled();
  await world.socket.welcome({ resumed: world.storage.length > 0 });
  return all;
}

const names = (states: State[]) => states.map((s) => s.name);

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

test('a refused submit rejects both promises and is not sent again', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('nope', {}, { taskId: 't' });
  w.socket.give({ type: 'error', id: 't', code: 'unknown_kind', message: 'no such kind', retryable: false });
  await assert.rejects(task.accepted, { code: 'unknown_kind' });
  await assert.rejects(task.result, { code: 'unknown_kind' });
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('submit'), []);
});

test('a cancel is asked on every new socket until the server has it', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const errors: string[] = [];
  client.on('error', (e) => errors.push((e as TaskError).code));
  const task = client.submit('make', {}, { taskId: 't' });
  task.cancel();
  const cancel = { type: 'cancel', id: 'cancel:t', task_id: 't', kind: 'make' };
  assert.deepEqual(w.socket.of('cancel'), [cancel]);
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('cancel'), [cancel]);
  w.socket.give({ type: 'error', id: 'cancel:t', task_id: 't', code: 'unavailable', message: 'so', retryable: true, retry_after_ms: 500 });
  assert.deepEqual(errors, ['unavailable']);
  await w.advance(5000);
  assert.deepEqual(w.socket.of('cancel'), [cancel, cancel]);
  w.socket.give({ type: 'canceling', id: 'cancel:t', task_id: 't' });
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('cancel'), []);
  w.socket.give(event(1, 0, 'error', { body: { code: 'canceled', message: 'the task was canceled', retryable: false, last_line: 0, timestamp: '' } }));
  await assert.rejects(task.result, { code: 'canceled' });
  task.cancel();
  assert.deepEqual(w.socket.of('cancel'), []);
});

test('a cancel that is refused for good is told, and the task goes on', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const errors: string[] = [];
  client.on('error', (e) => errors.push((e as TaskError).code));
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give({ type: 'accepted', id: 't', task_id: 't' });
  task.cancel();
  w.socket.give({ type: 'error', id: 'cancel:t', task_id: 't', code: 'unknown_task', message: 'no', retryable: false });
  await w.advance(5000);
  assert.deepEqual([errors, w.socket.of('cancel').length, client.tasks.length], [['unknown_task'], 1, 1]);
});

const refusal = (code: string, retry_after_ms?: number) =>
  ({ type: 'error', id: 't', task_id: 't', code, message: 'so', retryable: true, ...(retry_after_ms && { retry_after_ms }) }) as const;

test('a submit in doubt is sent again under the same ID, with jitter, until it is accepted', async () => {
  const w = new World();
  const { client, errors } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const first = w.socket.of('submit')[0];
  for (const [i, code] of ['unavailable', 'overloaded', 'internal', 'too_many_tasks'].entries()) {
    w.socket.give(refusal(code));
    await w.advance(100 * 2 ** i - 1); // random is 0.5
    assert.equal(w.socket.of('submit').length, i + 1);
    await w.advance(1);
    assert.deepEqual(w.socket.of('submit')[i + 1], first);
  }
  assert.deepEqual(errors.map((e) => (e as TaskError).code), ['unavailable', 'overloaded', 'internal', 'too_many_tasks']);
  w.socket.give({ type: 'accepted', id: 't', task_id: 't' });
  await task.accepted;
  await w.advance(20_000);
  assert.equal(w.socket.of('submit').length, 5);
});

test('a submit in doubt waits as long as the server asks, on another socket too, but not beyond close', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(refusal('overloaded', 10_000));
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  await w.advance(8999);
  assert.deepEqual(w.socket.of('submit'), []);
  await w.advance(1);
  assert.equal(w.socket.of('submit').length, 1);
  w.socket.give(refusal('overloaded', 10_000));
  client.close();
  await w.advance(20_000);
  assert.equal(w.timers, 0);
  client.connect();
  await settled();
  await w.socket.welcome({ resumed: true });
  assert.equal(w.socket.of('submit').length, 1);
});

test('events of a submit in doubt are handed out in order, and stand for its acceptance', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const seen: number[] = [];
  task.on('log', (e) => void seen.push(e.seq));
  w.socket.give(refusal('unavailable'));
  w.socket.give(event(2, 1)); // the broker has it after all
  w.socket.give(event(1, 0));
  await task.accepted;
  w.socket.give(event(3, 2, 'result'));
  assert.equal(await task.result, 42);
  assert.deepEqual(seen, [1, 2]);
  await w.advance(1000);
  assert.equal(w.socket.of('submit').length, 1);
});

test('a certain refusal ends a submit in doubt; too many tasks are certain at first', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(refusal('unavailable'));
  await w.advance(100);
  w.socket.give({ type: 'error', id: 't', task_id: 't', code: 'unknown_kind', message: 'no', retryable: false });
  await assert.rejects(task.result, { code: 'unknown_kind' });
  await w.advance(1000);
  assert.equal(w.socket.of('submit').length, 2);
  const more = client.submit('make', {}, { taskId: 't' });
  w.socket.give(refusal('too_many_tasks'));
  await assert.rejects(more.accepted, { code: 'too_many_tasks' });
});

test('what is certain to be refused is refused at once', async () => {
  const { client } = clientOn(new World());
  for (const taskId of ['', '-a', '.a', 'a b', 'a/b', 'x'.repeat(65)]) assert.throws(() => client.submit('k', {}, { taskId }), { code: 'bad_frame' });
  for (const kind of ['', 'Go', 'a.b', 'x'.repeat(65)]) assert.throws(() => client.submit(kind), { code: 'bad_frame' });
  assert.throws(() => client.submit('k', { x: 'ü'.repeat(33_000) }), { code: 'frame_too_large' });
  client.submit('k', {}, { taskId: 'a' });
  assert.throws(() => client.submit('k', {}, { taskId: 'a' }), { code: 'conflict' });
  for (let i = 1; i < 100; i++) client.submit('k');
  assert.throws(() => client.submit('k'), { code: 'too_many_tasks', retryable: true });
});

test('a submit without its reply is sent again under the same ID on every socket, and after a reload', async () => {
  const w = new World();
  const { client } = clientOn(w);
  const task = client.submit('make', { target: 'all' });
  client.connect();
  await settled();
  await w.socket.welcome();
  const [first] = w.socket.of('submit');
  assert.equal(first?.task_id, task.id);
  w.socket.cut();
  await w.advance(1000);
  assert.deepEqual(w.socket.of('hello'), []);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('submit'), [first]);
  assert.deepEqual(w.socket.of('hello'), [{ type: 'hello', token: 'token-1' }], 'the server need not know the task yet');

  const after = new World(w.storage);
  const reloaded = await openOn(after);
  assert.deepEqual(after.socket.of('submit'), [first]);
  assert.deepEqual(reloaded.restored.map((t) => [t.id, t.kind]), [[task.id, 'make']]);
});

test('a priority is asked for until the task is accepted, also after a reload, and only where it is named', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 'a', priority: 'high' });
  client.submit('make', {}, { taskId: 'b' });
  assert.deepEqual(w.socket.of('submit').map((m) => m.priority), ['high', undefined]);
  const after = new World(w.storage);
  await openOn(after);
  assert.deepEqual(after.socket.of('submit').map((m) => m.priority), ['high', undefined]);
});

test('an event is as good as the reply', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0, 'started'));
  await task.accepted;
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  assert.deepEqual(w.socket.of('submit'), []);
  assert.deepEqual(w.socket.of('hello')[0]?.tasks, [{ task_id: 't', attempt: 1, run_id: run1, next: 2 }]);
});

test('a position is acknowledged at once, the next 100 ms later, and sooner after 32 events', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  const told = async () => (await settled(), w.socket.of('ack').map((a) => a.tasks[0]?.next));
  w.socket.give(event(1, 0));
  assert.deepEqual(await told(), [2]);
  await w.advance(60);
  w.socket.give(event(2, 1));
  w.socket.give(event(3, 2));
  await w.advance(39);
  assert.deepEqual(await told(), [2]);
  await w.advance(1);
  assert.deepEqual(await told(), [2, 4], 'counted from the acknowledgement before, not from the event');
  for (let i = 4; i <= 34; i++) w.socket.give(event(i, i - 1));
  assert.deepEqual(await told(), [2, 4]);
  w.socket.give(event(35, 34));
  assert.deepEqual(await told(), [2, 4, 36]);
  w.socket.give(event(36, 35));
  await w.advance(99);
  assert.deepEqual(await told(), [2, 4, 36], 'counted from the one that 32 events made');
  await w.advance(1);
  assert.deepEqual(await told(), [2, 4, 36, 37]);
  await w.advance(100);
  w.socket.give(event(37, 36));
  assert.deepEqual(await told(), [2, 4, 36, 37, 38]);
  await w.advance(10_000);
  assert.equal((await told()).length, 5);
});

test('what comes in one turn is acknowledged in one message', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  client.submit('make', {}, { taskId: 'u' });
  for (let i = 40; i > 0; i--) w.socket.give(event(i, i - 1)); // 40 are ready with the last
  w.socket.give(event(1, 0, 'log', { task_id: 'u' }));
  await w.advance(1000);
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks.map((p) => [p.task_id, p.next])), [[['t', 41], ['u', 2]]]);
});

test('a clock that is set back holds no acknowledgement', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(1, 0));
  await settled();
  w.now -= 3_600_000;
  w.socket.give(event(2, 1));
  await settled();
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [2, 3]);
});

test('an acknowledgement never covers what waits for its turn or for the application', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  let finish = () => {};
  task.on('log', (e) => (e.seq === 2 ? new Promise<void>((resolve) => (finish = resolve)) : undefined));
  const last = async () => (await w.advance(100), w.socket.of('ack').at(-1)?.tasks[0]?.next);
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1));
  w.socket.give(event(3, 2));
  w.socket.give(event(5, 4));
  assert.equal(await last(), 2);
  finish();
  assert.equal(await last(), 4);
  w.socket.give(event(4, 3));
  assert.equal(await last(), 6);
});

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

test('duplicates and events of unknown or finished tasks are acknowledged, and not handed out', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  let count = 0;
  task.on('*', () => void count++);
  for (const _ of [1, 2, 3]) w.socket.give(event(1, 0));
  w.socket.give(event(2, 1, 'result'));
  w.socket.give(event(2, 1, 'result'));
  w.socket.give(event(8, 7, 'log', { task_id: 'stranger' }));
  w.socket.give(event(7, 6, 'log', { task_id: 'stranger' }));
  w.socket.give(event(9, 8, 'progress', { task_id: 'stranger' }));
  await settled();
  assert.equal(count, 2);
  assert.deepEqual(w.socket.of('ack')[0]?.tasks.map((p) => [p.task_id, p.next]), [['t', 3], ['stranger', 9]]);
});

test('a run that was replaced does not fill the window: what is dropped of it is acknowledged', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  w.socket.give(event(3, 2, 'log', { attempt: 2, run_id: run2 }));
  w.socket.give(event(1, 0));
  w.socket.give(event(2, 1));
  await settled();
  assert.deepEqual(w.socket.of('ack'), [{ type: 'ack', tasks: [{ task_id: 't', attempt: 2, run_id: run2, next: 1 }] }]);
});

test('a task whose events were acknowledged unseen is over, and so is one that ended: a submit under its ID says so at once', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const refuse = () => w.socket.give({ type: 'error', id: 't', task_id: 't', code: 'unknown_kind', message: 'not yet', retryable: false });
  const over = { name: 'TaskError', code: 'over', retryable: false, message: /submit under a new ID/ };
  client.submit('make', {}, { taskId: 't' });
  refuse();
  w.socket.give(event(1, 0, 'progress'));
  client.submit('make', {}, { taskId: 't' }); // nothing was acknowledged
  refuse();
  w.socket.give(event(2, 0)); // it runs all the same
  await settled();
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [3]);
  assert.throws(() => client.submit('make', {}, { taskId: 't' }), over);
  assert.equal(w.socket.of('submit').length, 2);

  client.submit('make', {}, { taskId: 'u' });
  w.socket.give(event(1, 0, 'result', { task_id: 'u' }));
  assert.throws(() => client.submit('make', {}, { taskId: 'u' }), over);
  for (let i = 1; i < maxOver; i++) w.socket.give(event(2, 1, 'log', { task_id: 'stranger' + i }));
  assert.throws(() => client.submit('make', {}, { taskId: 'u' }), over);
  client.submit('make', {}, { taskId: 't' }); // the oldest is forgotten
});

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

test('the application is told of a gap once, in its place, with what it really misses', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  const seen: unknown[] = [];
  task.on('log', (e) => void seen.push(e.seq));
  task.on('gap', (e) => void seen.push([e.body.from_seq, e.seq, e.body.reason]));
  for (const e of [event(1, 0), event(2, 1), gap(2, 4, 1), gap(2, 4, 1), event(5, 4), event(6, 5, 'result')]) w.socket.give(e);
  assert.equal(await task.result, 42);
  assert.deepEqual(seen, [1, 2, [3, 4, 'expired'], 5]);
});

test('a task whose end is in a gap ends, and says that its end is missing', async () => {
  const w = new World();
  const { client } = await openOn(w);
  const task = client.submit('make', {}, { taskId: 't' });
  w.socket.give(gap(1, 9, 0, { last: true }));
  await assert.rejects(task.result, { code: 'missed', message: /expired/ });
  assert.deepEqual(client.tasks, []);
  await settled();
  assert.deepEqual(w.socket.of('ack')[0]?.tasks.map((p) => p.next), [10]);
});

test('a reload while events and a gap wait for their turn: no position covers them, and all come again', async () => {
  const w = new World();
  const { client } = await openOn(w);
  client.submit('make', {}, { taskId: 't' });
  for (const e of [event(1, 0), gap(3, 5, 2), event(6, 5), event(8, 7)]) w.socket.give(e);
  w.page('pagehide', false);
  assert.deepEqual(w.socket.of('ack').map((a) => a.tasks[0]?.next), [2]);

  const after = new World(w.storage, w.locks);
  const { client: again } = clientOn(after);
  const seen: unknown[] = [];
  again.on('task', (t) => void t.on('*', (e) => void seen.push(e.event === 'gap' ? [e.body.from_seq, e.seq] : e.event === 'reset' ? 0 : e.seq)));
  again.connect();
  await settled();
  await after.socket.welcome({ resumed: true, tasks: [{ task_id: 't', state: 'running' }] });
  assert.deepEqual(after.socket.of('hello')[0]?.tasks?.[0]?.next, 2);
  for (const e of [event(2, 1), gap(3, 5, 2), event(6, 5), event(7, 6), event(8, 7), event(9, 8, 'result')]) after.socket.give(e);
  await settled();
  assert.deepEqual(seen, [2, [3, 5], 6, 7, 8, 9]);
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
