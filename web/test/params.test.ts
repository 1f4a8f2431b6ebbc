import assert from 'node:assert/strict';
import { test } from 'node:test';
import { clock, duration } from '../src/format.ts';
import { fromJSON, namedIn, readKinds, readParams } from '../src/params.ts';

const schema = {
  title: 'build it',
  type: 'object',
  additionalProperties: false,
  required: ['repo', 'mode'],
  properties: {
    count: { type: 'integer', minimum: 1, maximum: 9, default: 3 },
    env: { type: 'object', default: { a: 1 } },
    fast: { type: 'boolean', default: true },
    mode: { enum: ['debug', 7] },
    packages: { type: 'array', minItems: 2, maxItems: 3, items: { type: 'string', pattern: '^\\.' }, default: ['./a', './b'] },
    ratio: { type: 'number', exclusiveMinimum: 0, exclusiveMaximum: 1 },
    repo: { type: 'string', minLength: 2, maxLength: 4, pattern: '^[a-z😀]*$', description: 'where it is' },
  },
};
const read = (over: object = {}) => readKinds({ kinds: [{ kind: 'k', runners: 1, schemas: 1, schema, ...over }] })[0]!;
const good = { repo: 'abc', mode: '"debug"' };
const faultsOf = (texts: Record<string, string>, form = read()) => readParams(form, { ...good, ...texts }).faults;

test('a schema becomes fields: what is required first, each with its shape, its default and its bounds', () => {
  const form = read();
  assert.deepEqual([form.kind, form.title, form.strict], ['k', 'build it', true]);
  assert.deepEqual(form.fields!.map((f) => [f.name, f.shape, f.required, f.initial, f.hint]), [
    ['mode', 'choice', true, '', ''],
    ['repo', 'text', true, '', 'where it is'],
    ['count', 'integer', false, '3', '1 to 9'],
    ['env', 'json', false, '{"a":1}', 'JSON'],
    ['fast', 'flag', false, 'true', ''],
    ['packages', 'list', false, './a ./b', 'separated by spaces'],
    ['ratio', 'number', false, '', ''],
  ]);
});

test('texts become values of their types, and an empty one is left out, for its default holds', () => {
  assert.deepEqual(readParams(read(), { repo: ' ab ', mode: '7', count: '', ratio: '0.5', env: '[1]', packages: ' ./x  ./y ', fast: 'false' }), {
    params: { repo: 'ab', mode: 7, ratio: 0.5, env: [1], packages: ['./x', './y'], fast: false },
    faults: {},
  });
  assert.deepEqual(readParams(read(), good).params, { mode: 'debug', repo: 'abc', count: 3, env: { a: 1 }, fast: true, packages: ['./a', './b'] });
});

test('what is wrong with a value is said at its field, before anything is sent', () => {
  for (const [name, text, fault] of [
    ['repo', '', 'is missing'],
    ['repo', 'a', 'has 1 characters and must have 2'],
    ['repo', 'abcde', 'has 5 characters and may have 4'],
    ['repo', 'A-B', 'does not match ^[a-z😀]*$'],
    ['mode', '', 'is missing'],
    ['mode', '"fast"', 'must be one of "debug", 7'],
    ['count', 'ten', 'must be a whole number, as 12'],
    ['count', '"7"', 'must be a whole number, as 12'],
    ['count', '2.5', 'must be a whole number, as 12'],
    ['count', '0', 'must be at least 1'],
    ['count', '10', 'must be at most 9'],
    ['ratio', 'x', 'must be a number, as 12'],
    ['ratio', '0', 'must be more than 0'],
    ['ratio', '1', 'must be less than 1'],
    ['env', '{', 'is no JSON'],
    ['packages', './a', 'has 1 items and must have 2'],
    ['packages', './a ./b ./c ./d', 'has 4 items and may have 3'],
    ['packages', './a b', '[1] does not match ^\\.'],
  ] as const) assert.deepEqual(faultsOf({ [name]: text }), { [name]: fault }, `${name} ${text}`);
  assert.deepEqual(faultsOf({ repo: '😀😀😀😀', count: '9', ratio: '0.999' }), {}, 'characters are counted, not halves of them');
});

test('where runners differ, or a pattern is none of JavaScript’s, the server judges', () => {
  assert.deepEqual(faultsOf({ repo: 'ABCDE', count: '99' }, read({ schemas: 2 })), {});
  assert.deepEqual(faultsOf({ count: 'ten' }, read({ schemas: 2 })), { count: 'must be a whole number, as 12' }, 'but this is no value at all');
  const go = read({ schema: { properties: { repo: { type: 'string', pattern: '(?i)^x\\z' } } } });
  assert.deepEqual(readParams(go, { repo: 'anything' }), { params: { repo: 'anything' }, faults: {} });
});

test('a flag that is required is always sent, another one only if it changes something', () => {
  const flags = (required: string[], initial?: boolean) =>
    read({ schema: { required, properties: { f: { type: 'boolean', ...(initial !== undefined && { default: initial }) } } } });
  assert.deepEqual(readParams(flags(['f']), {}).params, { f: false });
  assert.deepEqual(readParams(flags([], true), { f: 'false' }).params, { f: false });
  assert.deepEqual(readParams(flags([]), {}).params, {});
  assert.deepEqual(readParams(flags([]), { f: 'true' }).params, { f: true });
});

test('what this form does not understand is asked for as JSON', () => {
  const form = read({ schema: { properties: { a: true, b: { type: ['string', 'null'] }, c: { type: 'array', items: { type: 'object' } }, d: { type: 'array', items: { type: 'string' }, default: ['a b'] } } } });
  assert.deepEqual(form.fields!.map((f) => f.shape), ['json', 'json', 'json', 'json']);
  assert.equal(read({ schema: undefined }).fields, undefined);
  assert.equal(read({ schema: { type: 'object' } }).fields, undefined);
  assert.deepEqual(read({ schema: { additionalProperties: false } }).fields, []);
  for (const bad of [undefined, null, 7, {}, { kinds: {} }, { kinds: [null, 7, { kind: 7 }] }]) assert.deepEqual(readKinds(bad), []);
});

test('the fields that a refusal names are found', () => {
  const { fields } = read();
  assert.deepEqual(namedIn('repo is missing; env.PATH must be string; packages[1] does not match x; counter is not a parameter', fields), ['repo', 'env', 'packages']);
  assert.deepEqual(namedIn('the parameters must be an object', fields), []);
});

test('the free form takes one JSON object', () => {
  assert.deepEqual(fromJSON(''), {});
  assert.deepEqual(fromJSON(' {"a":[1]} '), { a: [1] });
  for (const bad of ['[]', '1', 'null', '{']) assert.throws(() => fromJSON(bad));
});

test('durations and times read well', () => {
  assert.deepEqual([-5, 0, 440, 9949, 9951, 59_400, 59_600, 187_000, 7_500_000].map(duration), [
    '0.0 s', '0.0 s', '0.4 s', '9.9 s', '10 s', '59 s', '1 min 00 s', '3 min 07 s', '2 h 05 min',
  ]);
  const noon = new Date(2026, 2, 14, 12, 0).getTime();
  assert.equal(clock(noon - 24 * 3600_000, noon).endsWith(clock(noon, noon)), true);
  assert.match(clock(noon - 24 * 3600_000, noon), /13/, 'of another day it says which');
  assert.doesNotMatch(clock(noon, noon), /14/);
});
