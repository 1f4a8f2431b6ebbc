import assert from 'node:assert/strict';
import { test } from 'node:test';
import { duration } from '../src/format.ts';
import { builtIn, fromFields, fromJSON, readKinds, toField } from '../src/params.ts';

const form = { kind: 'k', params: { ref: 'HEAD', packages: ['./...'], seconds: 10, env: { a: 1 } } };

test('defaults become fields and fields parameters', () => {
  const fields = Object.fromEntries(Object.entries(form.params).map(([k, v]) => [k, toField(v)]));
  assert.deepEqual(fields, { ref: 'HEAD', packages: './...', seconds: '10', env: '{"a":1}' });
  assert.deepEqual(fromFields(form, fields), form.params);
});

test('an empty field is left out, words are split, a wrong number is named', () => {
  assert.deepEqual(fromFields(form, { ref: '  ', packages: ' ./a  ./b ', seconds: '2.5' }), { packages: ['./a', './b'], seconds: 2.5 });
  assert.throws(() => fromFields(form, { seconds: 'ten' }), /seconds must be a number, not ten/);
});

test('the free form takes one JSON object', () => {
  assert.deepEqual(fromJSON(''), {});
  assert.deepEqual(fromJSON(' {"a":[1]} '), { a: [1] });
  for (const bad of ['[]', '1', 'null', '{']) assert.throws(() => fromJSON(bad));
});

test('console.json gives the kinds; anything else the built-in ones', () => {
  assert.deepEqual(readKinds({ kinds: [form, { kind: 7 }, null, { kind: 'x', params: [] }] }), [form]);
  for (const bad of [undefined, null, 7, {}, { kinds: {} }, { kinds: [] }]) assert.equal(readKinds(bad), builtIn);
});

test('durations read well', () => {
  assert.deepEqual([-5, 0, 440, 9949, 9951, 59_400, 59_600, 187_000, 7_500_000].map(duration), [
    '0.0 s', '0.0 s', '0.4 s', '9.9 s', '10 s', '59 s', '1 min 00 s', '3 min 07 s', '2 h 05 min',
  ]);
});
