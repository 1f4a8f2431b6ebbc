import assert from 'node:assert/strict';
import { test } from 'node:test';
import { delay, maxRetryAfterMs, verdict } from '../src/backoff.ts';

test('the bound of a retry doubles from 200 ms to its cap', () => {
  const bounds = [1, 2, 3, 4, 30, 3000].map((n) => delay(n, 'retry', 0, 1, {}));
  assert.deepEqual(bounds, [200, 400, 800, 1600, 10_000, 10_000]);
  assert.deepEqual([1, 2, 3].map((n) => delay(n, 'retry', 0, 1, { baseDelayMs: 10, maxDelayMs: 50 })), [20, 40, 50]);
});

test('full jitter: anything between nothing and the bound', () => {
  assert.equal(delay(3, 'retry', 0, 0, {}), 0);
  assert.equal(delay(3, 'retry', 0, 0.25, {}), 200);
});

test('the server’s own time is a lower bound, within reason', () => {
  assert.equal(delay(1, 'retry', 5000, 1, {}), 5000);
  assert.equal(delay(1, 'resume', 700, 1, {}), 700);
  assert.equal(delay(1, 'retry', 1e15, 1, {}), maxRetryAfterMs);
  assert.equal(delay(1, 'retry', -5, 0, {}), 0);
});

test('a resume goes at once, but only the first in a row', () => {
  assert.equal(delay(1, 'resume', 0, 1, {}), 0);
  assert.equal(delay(2, 'resume', 0, 1, {}), 400);
});

test('close codes are judged by range', () => {
  const of = (v: string) => [1000, 1001, 1006, 1008, 1009, 1011, 1012, 1013, 3999, 4000, 4099, 4100, 4199, 4200, 4299, 4300].filter((c) => verdict(c) === v);
  assert.deepEqual(of('stop'), [1008, 4000, 4099]);
  assert.deepEqual(of('resume'), [4200, 4299]);
});
