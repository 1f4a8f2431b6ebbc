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

test('what would act on a terminal or a page is text or nothing', () => {
  for (const [line, want] of [
    ['<script>harm()</script>', '<script>harm()</script>'],
    ['<img src=x onerror="harm()">', '<img src=x onerror="harm()">'],
    ['</div><a href="javascript:harm()">x</a>&lt;b&gt;', '</div><a href="javascript:harm()">x</a>&lt;b&gt;'],
    ['\x1b]8;;javascript:harm()\x1b\\link\x1b]8;;\x1b\\', 'link'],
    ['\x1b]8;id=1;file:///etc/passwd\x07link\x1b]8;;\x07', 'link'],
    ['\x1b]8;;javascript:harm()', ''],
    ['\x1b]0;title\x07\x1b]2;title\x1b\\x', 'x'],
    ['\x1b]52;c;aWQ=\x07x', 'x'], // the clipboard
    ['\x1b]1337;File=inline=1:AAAA\x07x', 'x'],
    ['\x1b_G;AAAA\x1b\\x\x1b^p\x1b\\y\x1bXs\x1b\\z\x1bPq\x1b\\', 'xyz'],
    ['a\x1b[10;10Hb\x1b[3A\x1b[2K\x1b[1J\x1b[s\x1b[u\x1b8c', 'abc'],
    ['\x1b[6n\x1b[c\x1b[?1049h\x1b[?2004h\x1bc\x1b[!px', 'x'], // asks, modes, resets
    ['\x1b[31;background:url(//x)mx', 'ackground:url(//x)mx'],
    ['\x1b[38;2;red;1mx', 'ed;1mx'],
    ['a\x07\x08\x0e\x0f\x05b', 'ab'],
    ['\x9b2J\x9d0;t\x9cx\u0085', '2J0;tx'],
    ['\u202egpj\u2066', '\u202egpj\u2066'], // each line is a block of its own: it turns nothing else around
  ] as const) {
    assert.equal(text(line), want, JSON.stringify(line));
  }
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
    for (const r of paint(line)) {
      assert.doesNotMatch(r.text, /[\x00-\x08\x0a-\x1f\x7f-\x9f]/, JSON.stringify(line));
      assert.match([r.fg ?? '#000000', r.bg ?? '#000000', ...r.classes].join(' '), /^#[0-9a-f]{6} #[0-9a-f]{6}( (bold|faint|italic|underline|inverse|strike|[fb]g1?\d))*$/, JSON.stringify(line));
    }
  }
  assert.equal(text('\x1b]'.repeat(100_000) + 'x'), '');
  assert.equal(text('\x1b[0'.repeat(100_000)).length, 0);
});
