import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LogLines, maxChars, maxLines } from '../src/log.ts';

test('lines are kept by their numbers; what was seen is passed over', () => {
  const log = new LogLines();
  log.append(1, ['a', 'b']);
  log.append(2, ['b', 'c']);
  log.append(1, ['a']);
  log.append(7, ['g']);
  assert.deepEqual(log.blocks.map((b) => [b.first, ...b.lines]), [[1, 'a', 'b'], [3, 'c'], [7, 'g']]);
  assert.equal(log.last, 7);
});

test('a note stands between the lines, and changes no number', () => {
  const log = new LogLines();
  log.remark('before all');
  log.append(1, ['a']);
  log.remark('so');
  log.append(5, ['e']);
  assert.deepEqual(log.blocks.map((b) => b.note ?? b.lines[0]), ['before all', 'a', 'so', 'e']);
  assert.equal(log.last, 5);
});

test('beyond maxLines the oldest go', () => {
  const log = new LogLines();
  const block = Array.from({ length: 1000 }, () => 'x');
  for (let first = 1; first < maxLines + 5000; first += 1000) log.append(first, block);
  assert.equal(log.blocks.reduce((n, b) => n + b.lines.length, 0), maxLines);
  assert.equal(log.dropped, 5);
  assert.equal(log.blocks[0]?.first, 5001);
});

test('beyond maxChars the oldest go, but never the newest', () => {
  const log = new LogLines();
  log.append(1, ['x'.repeat(maxChars)]);
  log.append(2, ['y'.repeat(maxChars + 1)]);
  assert.deepEqual(log.blocks.map((b) => b.first), [2]);
});
