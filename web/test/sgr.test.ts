import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Painter } from '../src/sgr.ts';

const paint = (line: string) => new Painter().paint(line);
const text = (line: string) => paint(line).map((r) => r.text).join('');

test('plain text is one run, whatever it looks like', () => {
  for (const line of ['<b>x</b>', '  a\tb ', 'ünï 日本語', '[31m']) assert.deepEqual(paint(line), [{ text: line, classes: [], fg: undefined, bg: undefined }]);
  assert.deepEqual(paint(''), []);
});

test('looks are classes, and end where they end', () => {
  const got = paint('\x1b[1;31mred\x1b[22m thin\x1b[0m plain\x1b[92;44mon\x1b[39;49m.').map((r) => [r.text, r.classes.join(' ')]);
  assert.deepEqual(got, [['red', 'bold fg1'], [' thin', 'fg1'], [' plain', ''], ['on', 'fg10 bg4'], ['.', '']]);
});

test('256 and RGB colours are values, the first 16 classes', () => {
  const got = paint('\x1b[38;5;9ma\x1b[38;5;16mb\x1b[38;5;231mc\x1b[38;5;208md\x1b[48;5;244me\x1b[0;38;2;1;2;255mf\x1b[38:2:9:9:9mg');
  assert.deepEqual(got.map((r) => r.classes[0] ?? r.bg ?? r.fg), ['fg9', '#000000', '#ffffff', '#ff8700', '#808080', '#0102ff', '#090909']);
});

test('inverse swaps the colours', () => {
  assert.deepEqual(paint('\x1b[31;7mx')[0]?.classes, ['inverse', 'bg1']);
});

test('a look goes on in the next line', () => {
  const p = new Painter();
  p.paint('\x1b[33mfirst');
  assert.deepEqual(p.paint('second')[0]?.classes, ['fg3']);
});

test('all other escapes leave only text', () => {
  assert.equal(text('\x1b[2J\x1b[1;1Ha\x1b[?25lb\x1b(Bc\x1b7d'), 'abcd');
  assert.equal(text('\x1b]0;title\x07a\x1b]8;;javascript:x\x1b\\link\x1b]8;;\x07'), 'alink');
  assert.equal(text('\x1bPq#0;2\x1b\\sixel'), 'sixel');
  assert.equal(text('a\x00\x08\x7f\x9bb'), 'ab');
  assert.equal(text('end\x1b['), 'end');
  assert.equal(text('end\x1b]never closed'), 'end');
});

test('of what a carriage return overwrites the last is left, with its look', () => {
  assert.equal(text('10%\r20%\r100%'), '100%');
  assert.equal(text('windows line\r'), 'windows line');
  assert.deepEqual(paint('\x1b[32ma\rb')[0]?.classes, ['fg2']);
});

test('no line of random escapes throws, keeps a control character, or takes long', () => {
  const bits = ['\x1b', '[', ']', '0', ';', 'm', '38', ':', '5', '\x07', 'x', '\r', 'P', '\\', '\x9b', '?', ' '];
  let seed = 7;
  const next = (n: number) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % n;
  for (let i = 0; i < 5000; i++) {
    const line = Array.from({ length: next(40) }, () => bits[next(bits.length)]).join('');
    assert.doesNotMatch(text(line), /[\x00-\x08\x0a-\x1f\x7f-\x9f]/, JSON.stringify(line));
  }
  assert.equal(text('\x1b]'.repeat(100_000) + 'x'), '');
  assert.equal(text('\x1b[0'.repeat(100_000)).length, 0);
});
