import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Order, further, maxWaiting, maxWaitingChars } from '../src/order.ts';
import type { Step } from '../src/order.ts';
import type { TaskEvent } from '../src/wire.ts';
import { event, gap, run1, run2 } from './world.ts';

const start = { task_id: 't', attempt: 0, run_id: '', next: 0 };

/** Settles all that is ready; returns it as text. */
function drain(o: Order): string[] {
  const out: string[] = [];
  for (let s: Step | undefined; (s = o.peek()); o.settle(s)) out.push(told(s));
  return out;
}

function told(s: Step): string {
  if (s.event === 'gap') return `${s.body.from_seq}-${s.seq} missing`;
  return s.event === 'reset' ? 'reset' : `${s.event}${s.seq}`;
}

test('events in order pass through, and the position follows what is settled', () => {
  const o = new Order(start);
  assert.equal(o.take(event(1, 0), 10), true);
  assert.equal(o.take(event(2, 1), 10), true);
  assert.deepEqual(o.position, start);
  o.settle(o.peek()!);
  assert.deepEqual(o.position, { task_id: 't', attempt: 1, run_id: run1, next: 2 });
  assert.deepEqual(drain(o), ['log2']);
});

test('an early event waits for the one before it, and the position never covers it', () => {
  const o = new Order(start);
  o.take(event(3, 2), 10);
  o.take(event(1, 0), 10);
  assert.deepEqual(drain(o), ['log1']);
  assert.equal(o.position.next, 2);
  o.take(event(2, 1), 10);
  assert.deepEqual(drain(o), ['log2', 'log3']);
});

test('an event is next when its prev is lower than next: transient numbers leave holes', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  o.take(event(5, 1), 10);
  assert.deepEqual(drain(o), ['log1', 'log5']);
});

test('a transient event neither waits nor moves the position, and an old one is dropped', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  o.take(event(7, 5, 'progress'), 10);
  assert.deepEqual(drain(o), ['log1', 'progress7']);
  assert.equal(o.position.next, 2);
  o.take(event(6, 5, 'progress'), 10);
  assert.deepEqual(drain(o), []);
  o.take(event(5, 1), 10);
  o.take(event(8, 5), 10);
  assert.deepEqual(drain(o), ['log5', 'log8']);
});

test('of the progress that waits for the application the latest wins', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  for (let i = 2; i < 100; i++) o.take(event(i, 1, 'progress'), 10);
  assert.equal(o.waiting, 2);
  assert.deepEqual(drain(o), ['log1', 'progress99']);
  o.take(event(100, 1, 'progress'), 10);
  const shown = o.peek()!;
  o.take(event(101, 1, 'progress'), 10);
  o.settle(shown);
  assert.deepEqual(drain(o), ['progress101'], 'also while one is in the application’s hands');
});

test('duplicates are named as such', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  o.take(event(3, 2), 10);
  assert.equal(o.take(event(1, 0), 10), false);
  assert.equal(o.take(event(3, 2), 10), true, 'one that waits is not had');
  o.take(event(2, 1), 10);
  assert.deepEqual(drain(o), ['log1', 'log2', 'log3']);
});

test('a higher run resets, a lower one is a duplicate', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  o.take(event(2, 1), 10);
  o.settle(o.peek()!);
  o.take(event(1, 0, 'log', { run_id: run2 }), 10);
  assert.deepEqual(drain(o), ['reset', 'log1']);
  assert.deepEqual(o.position, { task_id: 't', attempt: 1, run_id: run2, next: 2 });
  assert.equal(o.take(event(3, 2), 10), false);
  o.take(event(1, 0, 'error', { attempt: 2, run_id: '' }), 10);
  assert.deepEqual(drain(o), ['reset', 'error1'], 'the attempt counts before the run');
});

test('of an earlier run nothing is wanted, though the application has nothing of the later one yet', () => {
  const o = new Order(start);
  assert.equal(o.take(event(3, 2, 'log', { run_id: run2 }), 10), true);
  assert.equal(o.take(event(1, 0), 10), false);
  assert.deepEqual(drain(o), []);
  assert.deepEqual(o.position, start);
  assert.deepEqual(o.wanted, { task_id: 't', attempt: 1, run_id: run2, next: 1 }, 'and what waits is not had');
  o.take(event(1, 0, 'log', { run_id: run2 }), 10);
  assert.deepEqual(drain(o), ['log1']);
  assert.deepEqual(o.wanted, o.position);
});

test('of an earlier run nothing is wanted while the application has a step of it in its hands', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  assert.deepEqual(drain(o), ['log1']);
  o.take(event(1, 0, 'log', { run_id: run2 }), 10);
  assert.equal(o.position.run_id, run1);
  assert.deepEqual(o.wanted, { task_id: 't', attempt: 1, run_id: run2, next: 1 });
});

test('a step that was in the application’s hands when a reset came changes nothing', () => {
  const o = new Order(start);
  o.take(event(9, 0), 10);
  const old = o.peek()!;
  o.take(event(1, 0, 'log', { run_id: run2 }), 10);
  assert.equal(o.settle(old), false);
  assert.deepEqual(drain(o), ['reset', 'log1']);
});

test('the final event is taken once', () => {
  const o = new Order(start);
  o.take(event(1, 0), 10);
  o.take(event(2, 1, 'result'), 10);
  assert.equal(o.take(event(1, 0, 'result', { attempt: 2 }), 10), false);
  assert.equal(o.finished, false);
  assert.deepEqual(drain(o), ['log1', 'result2']);
  assert.equal(o.finished, true);
  assert.equal(o.take(event(2, 1, 'result'), 10), false);
});

test('a position of before a reload goes on behind it', () => {
  const o = new Order({ task_id: 't', attempt: 1, run_id: run1, next: 4 });
  assert.equal(o.take(event(3, 2), 10), false);
  o.take(event(4, 3), 10);
  assert.deepEqual(drain(o), ['log4']);
});

test('at most maxWaiting events wait, and the one that is next still gets in', () => {
  const o = new Order(start);
  for (let i = 3; i < 3 + 2 * maxWaiting; i++) assert.equal(o.take(event(i, i - 1), 10), true);
  assert.equal(o.waiting, maxWaiting);
  o.take(event(1, 0), 10);
  o.take(event(2, 1), 10);
  const got = drain(o);
  assert.equal(got.length, maxWaiting);
  assert.equal(got.at(-1), `log${maxWaiting}`);
});

test('at most maxWaitingChars wait', () => {
  const o = new Order(start);
  const chars = maxWaitingChars / 4;
  for (let i = 2; i < 20; i++) o.take(event(i, i - 1), chars);
  assert.equal(o.waiting, 4);
  o.take(event(1, 0), chars);
  assert.deepEqual(drain(o), ['log1', 'log2', 'log3', 'log4']);
});

// The same cases as in pkg/wsclient/gap_test.go.
const gaps: [string, TaskEvent[], string][] = [
  ['in its place', [event(1, 0), gap(2, 4, 1), event(5, 4)], 'log1, 2-4 missing, log5'],
  ['too early', [gap(3, 4, 2), event(5, 4), event(1, 0), event(2, 1)], 'log1, log2, 3-4 missing, log5'],
  ['before anything else', [gap(1, 3, 0), event(4, 3)], '1-3 missing, log4'],
  ['of what the application has in part', [event(1, 0), event(2, 1), event(3, 2), gap(2, 5, 1)], 'log1, log2, log3, 4-5 missing'],
  ['of what the application has', [event(1, 0), event(2, 1), gap(1, 2, 0), event(3, 2)], 'log1, log2, log3'],
  ['of what comes after it all the same', [gap(1, 3, 0), event(2, 1), event(3, 2), event(4, 3)], '1-3 missing, log4'],
  ['twice', [gap(1, 3, 0), gap(1, 3, 0), event(4, 3)], '1-3 missing, log4'],
  ['of what waits for the same as it does', [event(3, 2), event(4, 3), gap(3, 4, 2), event(1, 0), event(2, 1)], 'log1, log2, log3, log4'],
  ['the same, the gap first', [gap(3, 4, 2), event(4, 3), event(3, 2), event(1, 0), event(2, 1)], 'log1, log2, log3, log4'],
  ['of a single event that came after all', [gap(2, 2, 1), event(2, 1), event(1, 0)], 'log1, log2'],
  ['of what waits in part', [event(3, 2), gap(3, 5, 2), event(1, 0), event(2, 1), event(6, 5)], 'log1, log2, log3, 4-5 missing, log6'],
  ['whose end waits', [event(5, 4), gap(3, 5, 2), event(6, 5), event(1, 0), event(2, 1)], 'log1, log2, 3-5 missing, log6'],
  ['whose end waits behind it', [gap(3, 5, 2), event(5, 4), event(1, 0), event(2, 1)], 'log1, log2, 3-5 missing'],
  ['of two gaps the one that fits', [gap(4, 6, 3), gap(2, 6, 1), event(1, 0), event(7, 6)], 'log1, 2-6 missing, log7'],
  ['of two gaps the lesser is enough', [gap(2, 6, 1), gap(4, 6, 3), event(3, 2), event(2, 1), event(1, 0)], 'log1, log2, log3, 4-6 missing'],
  ['overlapping another', [event(1, 0), gap(2, 4, 1), gap(3, 7, 2), event(8, 7)], 'log1, 2-4 missing, 5-7 missing, log8'],
  ['with holes where progress was', [event(1, 0), gap(4, 9, 1), event(12, 9)], 'log1, 4-9 missing, log12'],
  ['of another run', [event(1, 0), gap(1, 3, 0, { run_id: run2 })], 'reset, 1-3 missing'],
  ['of an earlier run', [event(1, 0, 'log', { run_id: run2 }), gap(1, 3, 0)], 'log1'],
  ['the last', [event(1, 0), gap(2, 3, 1, { last: true }), event(1, 0, 'log', { run_id: run2 })], 'log1, 2-3 missing'],
];

for (const [name, events, want] of gaps) {
  test('a gap takes the place of what it stands for: ' + name, () => {
    for (const times of [1, 2]) {
      const o = new Order(start);
      for (const e of events) for (let n = 0; n < times; n++) o.take(e, 10);
      assert.deepEqual(drain(o).join(', '), want);
      assert.equal(o.waiting, 0, 'nothing is left waiting');
      assert.equal(o.finished, name === 'the last');
      const { attempt, run_id, next } = o.position;
      o.take(event(100, next - 1, 'log', { attempt, run_id }), maxWaitingChars);
      assert.deepEqual(drain(o), o.finished ? [] : ['log100'], 'all the room is there again');
    }
  });
}

test('a gap that is next in order gets into a full order', () => {
  const o = new Order(start);
  for (let i = 2; i < 3 + maxWaiting; i++) o.take(event(i, i - 1), 10);
  o.take(gap(1, 5000, 0), 10);
  assert.deepEqual(drain(o), ['1-5000 missing']);
});

test('a gap leaves the frame that it came in as it was', () => {
  const o = new Order({ task_id: 't', attempt: 1, run_id: run1, next: 4 });
  const e = gap(2, 6, 1);
  o.take(e, 10);
  assert.deepEqual(drain(o), ['4-6 missing']);
  assert.equal(told(e), '2-6 missing');
});

test('further compares attempt, run, next', () => {
  const at = (attempt: number, run_id: string, next: number) => ({ task_id: 't', attempt, run_id, next });
  for (const [low, high] of [
    [at(0, '', 0), at(0, '', 1)],
    [at(1, run1, 9), at(1, run2, 1)],
    [at(1, run2, 9), at(2, run1, 1)],
  ] as const) {
    assert.equal(further(low, high), high);
    assert.equal(further(high, low), high);
  }
});

// A small generator, so that a failing schedule can be run again by its seed.
function randomOf(seed: number): (n: number) => number {
  let s = seed >>> 0;
  return (n) => {
    s = (s + 0x6d2b79f5) | 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

/** A run's events: durable ones chained by prev, progress between them, the last one final if asked. */
function story(random: (n: number) => number, attempt: number, run_id: string, final: boolean): TaskEvent[] {
  const out: TaskEvent[] = [];
  let prev = 0;
  const length = 3 + random(30);
  for (let seq = 1; seq <= length; seq++) {
    const name = seq === length && final ? 'result' : random(3) ? 'log' : 'progress';
    out.push(event(seq, prev, name, { attempt, run_id }));
    if (name !== 'progress') prev = seq;
  }
  return out;
}

/** Gives up some neighbours of a run for a gap; returns it and the seqs of those that are not sent any more. Nothing if none is durable. */
function evict(random: (n: number) => number, events: TaskEvent[]): { gap: TaskEvent; gone: Set<number> }[] {
  const durable = events.filter((e) => e.durable);
  if (!durable.length) return [];
  const first = random(durable.length);
  const chain = durable.slice(first, first + 1 + random(6));
  const end = chain.at(-1)!;
  const { attempt, run_id, last } = end;
  const stand = gap(chain[0]!.seq, end.seq, chain[0]!.prev, { attempt, run_id, last } as Partial<TaskEvent>);
  return [{ gap: stand, gone: new Set(chain.filter(() => random(2)).map((e) => e.seq)) }]; // of the others a copy is left
}

test('whatever is doubled, swapped, lost, given up and sent again, and however often the page reloads: once and in order, or told as missing', () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const random = randomOf(seed);
    const runs = [story(random, 1, run1, false), story(random, 1 + random(2), run2, true)];
    const given = runs.map((events) => (random(3) ? [] : Array.from({ length: 1 + random(3) }, () => evict(random, events)).flat()));
    let o = new Order(start);
    let shown: Step[] = [];
    for (let round = 0; !o.finished; round++) {
      assert.ok(round < 200, `seed ${seed}: no end`);
      // What the server would send from its own point of view: all that is not acknowledged or given up,
      // shuffled within a distance, some lost, some twice; of the later run only after a while.
      const events = runs.slice(0, round < 3 ? 1 : 2).flatMap((run, r) => [
        ...run.filter((e) => round < random(4) || !given[r]!.some((g) => g.gone.has(e.seq))),
        ...given[r]!.map((g) => g.gap),
      ]);
      for (let i = events.length - 1; i > 0; i--) {
        const j = Math.max(0, i - random(8));
        [events[i], events[j]] = [events[j]!, events[i]!];
      }
      for (const e of events) {
        if (!random(5)) continue;
        for (let n = random(4) ? 1 : 2; n > 0; n--) o.take(e, 10);
        for (let n = random(3); n > 0; n--) {
          const s = o.peek();
          if (!s) break;
          if (s.event === 'reset') shown = [];
          else shown.push(s);
          o.settle(s);
        }
        if (!random(20) && !o.finished) o = new Order(o.position); // a reload: what waited is gone
      }
    }
    const events = shown as TaskEvent[];
    const winner = events.at(-1)!;
    const want = runs.flat().filter((e) => e.durable && e.run_id === winner.run_id && e.attempt === winner.attempt).map((e) => e.seq);
    // Each durable event of the run was shown or told as missing, once, and in order.
    const covered = events.filter((e) => e.durable).flatMap((e) => (e.event === 'gap' ? want.filter((n) => e.body.from_seq <= n && n <= e.seq) : [e.seq]));
    assert.deepEqual(covered, want, `seed ${seed}`);
    // A reload between a progress event and the next durable one may show progress again, never lines.
    const newest = (i: number) => Math.max(0, ...events.slice(0, i).filter((e) => e.durable).map((e) => e.seq));
    assert.ok(events.every((e, i) => e.seq > newest(i)), `seed ${seed}`);
  }
});

test('a server that sends no more than a few durable events before they are acknowledged comes to the end, whatever came before', () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const random = randomOf(seed);
    const all = [...story(random, 1, run1, !random(3)), ...story(random, 1 + random(2), run2, true)];
    const window = 1 + random(4);
    const shown = new Set<TaskEvent>();
    let o = new Order(start);
    let acknowledged = start;
    const had = (e: TaskEvent) => e.durable && further(acknowledged, { ...e, next: e.seq + 1 }) === acknowledged;
    const acknowledge = (p: typeof start) => {
      acknowledged = further(acknowledged, p);
      const lie = all.find((e) => had(e) && e.attempt === acknowledged.attempt && e.run_id === acknowledged.run_id && !shown.has(e));
      assert.equal(lie, undefined, `seed ${seed}: acknowledged, but not had`);
    };
    const take = (e: TaskEvent) => o.take(e, 10) || acknowledge(o.wanted);
    const settle = (steps: number) => {
      for (let s; steps-- > 0 && (s = o.peek()); ) {
        shown.add(s as TaskEvent);
        if (o.settle(s)) acknowledge(o.position);
      }
    };
    for (let n = random(40); n > 0; n--) {
      const e = all[random(all.length)]!;
      if (!had(e)) take(e); // nothing that is acknowledged is sent again
      settle(random(3));
      if (!random(20) && !o.finished) o = new Order(o.position);
    }
    const sent = new Set<TaskEvent>();
    for (let round = 0; !o.finished; round++) {
      assert.ok(round <= all.length, `seed ${seed}: no end`);
      const open = all.filter((e) => e.durable && !had(e)).slice(0, window);
      for (const e of [...open, ...all.filter((e) => !e.durable)]) if (sent.size < sent.add(e).size) take(e);
      settle(Infinity);
    }
  }
});
