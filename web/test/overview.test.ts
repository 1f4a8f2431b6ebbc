import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Client } from '../../client/src/index.ts';
import type { Engine, Workflow } from '../../client/src/index.ts';
import { World, settled } from '../../client/test/world.ts';
import { Overview, WorkflowWatch, Workflows, maxUpdates, maxWorkflows, replaces } from '../src/overview.ts';
import type { Status } from '../src/overview.ts';

const at = (second: number) => new Date(Date.UTC(2026, 0, 1) + second * 1000).toISOString();

function flow(workflow_id: string, status: Status, second: number, step = 0): Workflow {
  return { workflow_id, kind: 'make', status, current_step: step, total_steps: 4, message: `${status} ${step}`, timestamp: at(second) };
}

const ids = (w: Workflows, status: Status | '' = '') => w.list(status).map((r) => r.workflow_id).join(' ');

test('what runs comes first, then what waits, then what has ended, each the latest first', () => {
  const w = new Workflows();
  for (const f of [flow('a', 'running', 1), flow('b', 'failed', 2), flow('c', 'queued', 3), flow('d', 'running', 4), flow('e', 'succeeded', 5), flow('f', 'queued', 6)]) w.take(f);
  assert.equal(ids(w), 'd a f c e b');
  assert.equal(ids(w, 'queued'), 'f c');
  assert.deepEqual([w.count(''), w.count('running'), w.count('canceled')], [6, 2, 0]);
});

test('a row moves when its status changes, not with each step', () => {
  const w = new Workflows();
  for (const f of [flow('a', 'running', 1), flow('b', 'running', 2), flow('a', 'running', 3, 2)]) w.take(f);
  assert.equal(ids(w), 'b a');
  assert.equal(w.list('')[1]?.current_step, 2);
  w.take(flow('a', 'succeeded', 4, 4));
  assert.equal(ids(w), 'b a');
  w.take(flow('b', 'failed', 5, 4));
  assert.equal(ids(w), 'b a');
});

test('an update that is older than what is known changes nothing; queued is older than all else, whatever the clocks say', () => {
  const running = flow('a', 'running', 10, 2);
  assert.equal(replaces(undefined, flow('a', 'queued', 1)), true);
  assert.equal(replaces(running, flow('a', 'running', 9, 1)), false);
  assert.equal(replaces(running, flow('a', 'running', 10, 2)), true);
  assert.equal(replaces(running, flow('a', 'queued', 11)), false);
  assert.equal(replaces(flow('a', 'queued', 11), running), true);
  assert.equal(replaces(flow('a', 'queued', 11), flow('a', 'queued', 10)), false);
  assert.equal(replaces(flow('a', 'succeeded', 12), running), false);
});

test('a snapshot forgets what had not ended: it is in it, or ended unseen', () => {
  const w = new Workflows();
  for (const f of [flow('a', 'running', 1), flow('b', 'failed', 2), flow('c', 'queued', 3)]) w.take(f);
  w.begin();
  assert.equal(ids(w), 'b');
});

test('of more workflows than are remembered the oldest that have ended go', () => {
  const w = new Workflows();
  w.take(flow('runs', 'running', 0));
  for (let i = 1; i <= maxWorkflows; i++) w.take(flow(`w${i}`, 'succeeded', i));
  assert.equal(w.count(''), maxWorkflows);
  assert.equal(w.count('running'), 1);
  assert.ok(!ids(w).split(' ').includes('w1'));
});

async function connected(): Promise<{ w: World; client: Client; give: (channel: string, name: string, body: unknown) => void; answer: (channel: string, snapshot: number) => void }> {
  const w = new World();
  const client = new Client({ platform: w.platform });
  client.connect();
  await settled();
  await w.socket.welcome();
  return {
    w,
    client,
    give: (channel, name, body) => w.socket.give({ type: 'message', channel, name, time: at(0), body }),
    answer: (channel, snapshot) => w.socket.give({ type: 'subscribed', id: w.socket.of('subscribe').filter((m) => m.channel === channel).at(-1)!.id!, channel, snapshot }),
  };
}

test('the overview follows workflows and engine while somebody looks', async () => {
  const { w, client, give, answer } = await connected();
  let drawn = 0;
  const o = new Overview(client, () => drawn++);
  assert.deepEqual(w.socket.of('subscribe'), []);
  const leave = o.look();
  answer('workflows', 1);
  answer('engine', 0);
  give('workflows', 'workflow', flow('a', 'running', 1, 1));
  give('workflows', 'of a later version', { x: 1 });
  give('engine', 'engine', { server_id: 'i1-w1' } as Engine);
  assert.deepEqual([ids(o.workflows), o.engine?.server_id, o.watch], ['a', 'i1-w1', 'live']);
  assert.ok(drawn >= 3);
  leave();
  assert.deepEqual(w.socket.of('unsubscribe').map((m) => m.channel), ['workflows', 'engine']);
});

test('what was missed is told, and asked for again once', async (t) => {
  const { w, client, answer } = await connected();
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const o = new Overview(client, () => {});
  const leave = o.look();
  answer('workflows', 0);
  w.socket.give({ type: 'missed', channel: 'workflows', count: 3, reason: 'slow' });
  w.socket.give({ type: 'missed', channel: 'workflows', count: 2, reason: 'slow' });
  assert.equal(o.missed, 5);
  w.socket.give({ type: 'missed', channel: 'workflows', count: 0, reason: 'lost' });
  assert.equal(o.missed, -1);
  const asked = () => w.socket.of('subscribe').filter((m) => m.channel === 'workflows').length;
  t.mock.timers.tick(1999);
  assert.equal(asked(), 1);
  t.mock.timers.tick(10_000);
  assert.equal(asked(), 2);
  answer('workflows', 0);
  assert.equal(o.missed, 0);
  w.socket.give({ type: 'missed', channel: 'workflows', count: 1, reason: 'slow' });
  leave();
  t.mock.timers.tick(10_000);
  assert.equal(asked(), 2);
});

test('a refusal is told', async () => {
  const { w, client } = await connected();
  const o = new Overview(client, () => {});
  o.look();
  w.socket.give({ type: 'error', id: w.socket.of('subscribe')[0]!.id!, code: 'forbidden', message: 'no grant', retryable: false });
  assert.deepEqual(o.watch, { refused: 'no grant' });
});

test('one workflow is followed by its ID, with its updates, the latest first', async () => {
  const { w, client, give, answer } = await connected();
  const o = new WorkflowWatch(client, 'a', () => {});
  o.look();
  answer('workflow.a', 1);
  give('workflow.a', 'workflow', flow('a', 'running', 1, 1));
  give('workflow.a', 'workflow', flow('a', 'running', 2, 2));
  give('workflow.a', 'workflow', flow('a', 'queued', 3));
  w.socket.cut();
  await w.advance(1000);
  await w.socket.welcome({ resumed: true });
  answer('workflow.a', 1);
  give('workflow.a', 'workflow', flow('a', 'running', 2, 2));
  assert.deepEqual([o.now?.current_step, o.updates.map((u) => u.current_step)], [2, [2, 1]]);
  for (let i = 3; i < maxUpdates + 10; i++) give('workflow.a', 'workflow', flow('a', 'running', i, i));
  assert.deepEqual([o.updates.length, o.updates[0]?.current_step], [maxUpdates, maxUpdates + 9]);
});
