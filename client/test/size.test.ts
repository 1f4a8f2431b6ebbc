import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';

// Bundled and minified by npm test.
for (const [name, what, most] of [
  ['core', 'the client with both transports', 6500],
  ['all', 'with whole logs, channels, requests and loops over events it', 8250],
] as const) {
  test(`${what} has at most ${most} bytes`, (t) => {
    const bytes = gzipSync(readFileSync(`build/size/${name}.js`), { level: 9 }).length;
    t.diagnostic(`${bytes} bytes gzip`);
    assert.ok(bytes <= most, `${bytes} bytes`);
  });
}
