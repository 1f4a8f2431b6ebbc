import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { Client } from '../../client/src/index.ts';
import type { TaskEvent } from '../../client/src/index.ts';
import { World, event, settled } from '../../client/test/world.ts';
import type { Journal } from '../src/journal.ts';
import { Session, maxTasks } from '../src/session.ts';

/** A journal in memory whose writes wait until the test lets them through. */
class HeldJournal {
  readonly kept: TaskEvent[] = [];
  room = true;
  gate: Promise<void> = Promise.resolve();

  async keep(e: TaskEvent): Promise<boolean> {
    await this.gate;
    if (this.room && e.durable) this.kept.push(e);
    return this.room;
  }
  read = async (task: string) => this.kept.filter((e) => e.task_id === task);
  forget = async (task: string) => void this.kept.splice(0, Infinity, ...this.kept.filter((e) => e.task_id !== task));
}

/** What the server has of the session's tasks, by the path that is asked for. */
let served: Record<string, { status?: number; body: unknown }> = {};
let asked: string[] = [];
beforeEach(() => {
  served = {};
  asked = [];
  globalThis.fetch = async (path, init) => {
    asked.push(`${String(path)} ${new Headers(init?.headers).get('X-Socket-Meta')}`);
    const { status = 200, body } = served[String(path)] ?? { body: { tasks: [], more: false } };
    return new Response(typeof body === 'string' ? body : JSON.stringify(body), { status });
  };
});

const run = (id: string, minute: number, over: object = {}) => ({
  task_id: id, kind: 'make', status: 'succeeded', attempt: 1, run_id: 'r', runner: 'r1', submitted_at: `2026-03-14T09:${minute}:00.000Z`, last_line: 2, ...over,
});

async function open(w: World, journal = new HeldJournal()) {
  const session = new Session(new Client({ platform: w.platform }), journal as unknown as Journal, w.storage, () => {});
  session.connect();
  await settled();
  await w.socket.welcome({ resumed: true });
  return { session, journal };
}

const give = (w: World, id: string, seq: number, name: 'log' | 'result' = 'log') => w.socket.give(event(seq, seq - 1, name, { task_id: id }));

test('an event is journalled, then shown, then acknowledged', async () => {
  const w = new World();
  const { session, journal } = await open(w);
  const v = session.submit('make', {});
  let pass = () => {};
  journal.gate = new Promise((resolve) => (pass = resolve));
  give(w, v.id, 1);
  await w.advance(250);
  assert.deepEqual([journal.kept.length, v.log.last, w.socket.of('ack').length], [0, 0, 0]);
  pass();
  await w.advance(250);
  assert.deepEqual([journal.kept.length, v.log.last, w.socket.of('ack').length], [1, 1, 1]);
});

test('a reload shows what was shown, each line once, also if the last acknowledgement was lost', async () => {
  const w = new World();
  const { session, journal } = await open(w);
  const v = session.submit('make', { target: 'all' });
  for (let i = 1; i <= 3; i++) give(w, v.id, i);
  await settled();
  journal.kept.push(event(4, 3, 'log', { task_id: v.id })); // journalled, but the page went before it could say so
  w.page('pagehide', false);

  const after = new World(w.storage, w.locks);
  const again = (await open(after, journal)).session;
  for (let i = 3; i <= 5; i++) give(after, v.id, i);
  give(after, v.id, 6, 'result');
  await settled();
  const [shown] = again.tasks;
  assert.deepEqual(shown?.log.blocks.flatMap((b) => b.lines), ['line 1', 'line 2', 'line 3', 'line 4', 'line 5']);
  assert.deepEqual([shown?.state, shown?.params], ['succeeded', { target: 'all' }]);
  after.page('pagehide', false);

  const third = (await open(new World(w.storage, w.locks), journal)).session;
  assert.deepEqual(third.tasks.map((t) => t.state), ['succeeded']);
  await third.load(third.tasks[0]!);
  assert.deepEqual([third.tasks[0]!.log.last, third.tasks[0]!.value], [5, 42]);
});

test('a task is canceled, and shown so after a reload', async () => {
  const w = new World();
  const { session } = await open(w);
  const v = session.submit('make', {});
  session.cancel(v);
  assert.equal(v.canceling, true);
  assert.deepEqual(w.socket.of('cancel').map((m) => m.task_id), [v.id]);
  const body = { code: 'canceled', message: 'the task was canceled', retryable: false, last_line: 0, timestamp: '2026-03-14T09:26:53.589Z' };
  w.socket.give(event(1, 0, 'error', { task_id: v.id, body }));
  await settled();
  assert.deepEqual([v.state, v.error?.code], ['canceled', 'canceled']);
  session.cancel(v); // it is over
  w.page('pagehide', false);
  const again = (await open(new World(w.storage, w.locks))).session;
  assert.deepEqual(again.tasks.map((t) => t.state), ['canceled']);
});

test('a refusal is remembered with its reason', async () => {
  const w = new World();
  const { session } = await open(w);
  const v = session.submit('nope', {});
  w.socket.give({ type: 'error', id: v.id, task_id: v.id, code: 'unknown_kind', message: 'no such kind', retryable: false });
  await settled();
  assert.equal(v.state, 'refused');
  w.page('pagehide', false);
  const again = (await open(new World(w.storage, w.locks))).session;
  assert.deepEqual([again.tasks[0]?.state, again.tasks[0]?.error?.code], ['refused', 'unknown_kind']);
});

test('in a copied tab the other tab’s open tasks are shown as lost', async () => {
  const w = new World();
  const { session } = await open(w);
  session.submit('make', {});
  const copy = new World(w.storage.copy(), w.locks);
  const other = new Session(new Client({ platform: copy.platform }), new HeldJournal() as unknown as Journal, copy.storage, () => {});
  other.connect();
  await copy.advance(1000);
  await copy.socket.welcome({ client_id: 'c2' });
  assert.deepEqual(other.tasks.map((t) => t.state), ['lost']);
});

test('what the journal has no room for is still shown, and said', async () => {
  const w = new World();
  const { session, journal } = await open(w);
  const v = session.submit('make', {});
  journal.room = false;
  give(w, v.id, 1);
  await w.advance(250);
  assert.deepEqual([session.unkept, v.log.last, w.socket.of('ack').length], [true, 1, 1]);
});

test('of ended tasks the oldest become earlier ones, and leave the journal; open ones stay', async () => {
  const w = new World();
  const { session, journal } = await open(w);
  const first = session.submit('make', {});
  const second = session.submit('make', {});
  give(w, second.id, 1, 'result');
  await settled();
  for (let i = session.tasks.length; i <= maxTasks; i++) session.submit('make', {});
  await settled();
  assert.equal(session.tasks.length, maxTasks);
  assert.equal(session.tasks.includes(second), false);
  assert.equal(session.tasks.includes(first), true);
  assert.deepEqual([session.earlier[0] === second, session.find(second.id) === second], [true, true]);
  assert.deepEqual(journal.kept, []);
});

test('a page lists the tasks of the session that it never saw, shows their logs, and finds older ones', async () => {
  served['/v1/tasks?limit=50'] = { body: { tasks: [run('t3', 30), run('t2', 20)], more: true, missing_runners: ['r2'] } };
  served['/v1/tasks?limit=50&before=2026-03-14T09%3A20%3A00.000Z'] = { body: { tasks: [run('t1', 10)], more: false } };
  served['/v1/tasks/t2/log?format=ndjson&from_line=1'] = { body: '{"line":1,"text":"one"}\n{"line":2,"text":"two"}\n' };
  const { session } = await open(new World());
  await settled();
  assert.deepEqual([session.earlier.map((t) => t.id), session.missing, !!session.older], [['t3', 't2'], ['r2'], true]);
  assert.deepEqual(asked, [`/v1/tasks?limit=50 ${session.meta?.token}`]);
  await session.readEarlier(true);
  assert.deepEqual([session.earlier.map((t) => t.id), session.older], [['t3', 't2', 't1'], '']);
  const v = session.find('t2')!;
  await session.load(v);
  await settled();
  assert.deepEqual(v.log.blocks.flatMap((b) => b.lines), ['one', 'two']);
  assert.equal(session.follows(v), false);
});

test('a task that this tab follows is not listed twice, and of one that it lost the server knows the end', async () => {
  const w = new World();
  const { session } = await open(w);
  const followed = session.submit('make', {});
  const lost = session.submit('make', {});
  w.socket.give({ type: 'error', id: lost.id, task_id: lost.id, code: 'internal', message: '', retryable: false });
  await settled();
  lost.state = 'lost';
  served['/v1/tasks?limit=50'] = { body: { tasks: [run(followed.id, 30, { status: 'running' }), run(lost.id, 20)], more: false } };
  await session.readEarlier();
  assert.deepEqual(session.earlier, []);
  assert.deepEqual([followed.state, lost.state, lost.error], ['submitting', 'succeeded', undefined]);
});

test('an earlier task that went on is shown anew, one that did not stays as it is', async () => {
  served['/v1/tasks?limit=50'] = { body: { tasks: [run('t2', 20, { status: 'running' }), run('t1', 10)], more: false } };
  const { session } = await open(new World());
  await settled();
  const [t2, t1] = session.earlier;
  served['/v1/tasks?limit=50'] = { body: { tasks: [run('t2', 20, { last_line: 9 }), run('t1', 10)], more: false } };
  await session.readEarlier();
  assert.deepEqual([session.earlier[0]?.state, session.earlier[0]?.lastLine, session.earlier[0] === t2, session.earlier[1] === t1], ['succeeded', 9, false, true]);
});

test('why the list cannot be read is said, and forgotten when it can', async () => {
  served['/v1/tasks?limit=50'] = { status: 503, body: { detail: 'this worker has no broker now; try again' } };
  const { session } = await open(new World());
  await settled();
  assert.equal(session.earlierFault, 'this worker has no broker now; try again');
  served = {};
  await session.readEarlier();
  assert.equal(session.earlierFault, '');
});
