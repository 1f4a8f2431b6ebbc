import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Order, further, maxWaiting, maxWaitingChars } from '../src/order.ts';
import type { Step } from '../src/order.ts';
import type { TaskEvent } from '../src/wire.ts';
import { event, run1, run2 } from './world.ts';

const start = { task_id: 't', attempt: 0, run_id: '', next: 0 };

/** Settles all that is ready; returns it as text. */
function drain(o: Order): string[] {
  const out: string[] = [];
  for (let s: Step | undefined; (s = o.peek()); o.settle(s)) out.push(s.event === 'reset' ? 'reset' : `${s.event}${s.seq}`);
  return out;
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

test('whatever is doubled, swapped, lost and sent again, and however often the page reloads: once and in order', () => {
  for (let seed = 1; seed <= 2000; seed++) {
    const random = randomOf(seed);
    const runs = [story(random, 1, run1, false), story(random, 1 + random(2), run2, true)];
    let o = new Order(start);
    let shown: Step[] = [];
    for (let round = 0; !o.finished; round++) {
      assert.ok(round < 200, `seed ${seed}: no end`);
      // What the server would send from its own point of view: all that is not acknowledged, shuffled
      // within a distance, some lost, some twice; of the later run only after a while.
      const events = runs.slice(0, round < 3 ? 1 : 2).flat();
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
    const winner = shown.at(-1) as TaskEvent;
    const durable = (shown as TaskEvent[]).filter((e) => e.durable).map((e) => e.seq);
    const want = runs.flat().filter((e) => e.durable && e.run_id === winner.run_id && e.attempt === winner.attempt);
    assert.deepEqual(durable, want.map((e) => e.seq), `seed ${seed}`);
    const numbers = (shown as TaskEvent[]).map((e) => e.seq);
    // A reload between a progress event and the next durable one may show progress again, never lines.
    assert.ok(numbers.every((n, i) => i === 0 || !(shown[i] as TaskEvent).durable || n > Math.max(0, ...durable.filter((d) => d < n))));
  }
});
