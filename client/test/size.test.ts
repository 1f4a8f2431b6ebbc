import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

test('the whole client is small', (t) => {
  const bytes = gzipSync(readFileSync('build/client.js'), { level: 9 }).length; // bundled and minified by npm test
  t.diagnostic(`${bytes} bytes gzip`);
  assert.ok(bytes <= 6600, `${bytes} bytes`);
});
