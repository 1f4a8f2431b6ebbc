import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { decode } from '../src/wire.ts';
import type { ClientMessage, ServerMessage, TaskEvent, Workflow } from '../src/wire.ts';

const dir = '../pkg/wire/testdata/'; // npm runs tests in client/
const index = JSON.parse(readFileSync(dir + 'index.json', 'utf8')) as { client: string[]; server: string[] };
const read = (name: string) => readFileSync(`${dir}${name}.json`, 'utf8');

const task_id = 'build-7f3a';
const position = { task_id, attempt: 1, run_id: '018f6d9a-30aa-7b11-9c22-abcdefabcdef', next: 6 };
const timestamp = '2026-03-14T09:26:53.589Z';

// Typed by our own declarations: tsc refuses a field that they lack, the comparison one that they miss.
const numbers = { type: 'event', task_id, attempt: 1, run_id: position.run_id, durable: true, last: false } as const;
const metaFields = {
  type: 'socket_meta', client_id: '018f6d9a-2b3c-7d4e-8f50-123456789abc', server_id: 'i1-w3', token: 'eyJ.resume.sig',
  route: 'eyJ.route.sig', heartbeat_ms: 15_000, resume_window_ms: 600_000,
} as const;

const fromServer: Record<string, ServerMessage> = {
  accepted: { type: 'accepted', id: 'r1', task_id, queue_position: 0 },
  bye: { type: 'bye', code: 1012, reason: 'drain', retry_after_ms: 2500 },
  canceling: { type: 'canceling', id: 'r2', task_id },
  error: { type: 'error', id: 'r1', task_id, code: 'unknown_kind', message: 'no task runner has ever offered kind "go-biuld"', retryable: false },
  error_frame: { type: 'error', code: 'overloaded', message: "the worker's queue is full", retryable: true, retry_after_ms: 1500 },
  event_artifact: { ...numbers, seq: 9, prev: 6, event: 'artifact', body: { name: 'app.tar.gz', content_type: 'application/gzip', size_bytes: 1048576, sha256: '0f'.repeat(32) } },
  event_error: { ...numbers, seq: 10, prev: 9, event: 'error', last: true, body: { code: 'failed', message: 'step test: exit status 1', retryable: true, last_line: 43, timestamp } },
  event_gap: { ...numbers, seq: 5, prev: 1, event: 'gap', body: { from_seq: 2, reason: 'expired', timestamp } },
  event_gap_last: { ...numbers, seq: 10, prev: 5, event: 'gap', last: true, body: { from_seq: 6, reason: 'caps', timestamp } },
  event_log: { ...numbers, seq: 8, prev: 6, event: 'log', durable: false, body: { first_line: 41, lines: ['\u001b[32mok\u001b[0m  app/core  0.021s', 'a < b && "c"', '日本語 \u2028 end'] } },
  event_progress: { ...numbers, seq: 7, prev: 6, event: 'progress', durable: false, body: { workflow_id: task_id, status: 'running', current_step: 17, total_steps: 60, message: 'ok internal/session', timestamp } },
  event_result: { ...numbers, seq: 10, prev: 9, event: 'result', last: true, body: { value: { packages: 60, failed: 0 }, last_line: 43, timestamp } },
  event_started: { ...numbers, seq: 1, prev: 0, event: 'started', body: { kind: 'go-build', runner: 'r1', total_steps: 4, timestamp } },
  event_step: { ...numbers, seq: 5, prev: 4, event: 'step', body: { workflow_id: task_id, status: 'succeeded', current_step: 2, total_steps: 4, message: 'go vet', timestamp } },
  log_lines: {
    type: 'log_lines', id: 'r3', task_id, attempt: 1, run_id: position.run_id, runner: 'r1', first_line: 41,
    lines: ['\u001b[32mok\u001b[0m  app/core  0.021s', 'FAIL app/web'], last_line: 42, ended: true,
  },
  message: {
    type: 'message', channel: 'workflow.build-7f3a', name: 'workflow', publisher: 'r1', stream: position.run_id, seq: 7, key: task_id, time: timestamp,
    body: { workflow_id: task_id, kind: 'go-build', status: 'running', current_step: 2, total_steps: 4, message: 'step 2 of 4: go vet', timestamp } satisfies Workflow,
  },
  message_plain: { type: 'message', channel: 'news.team-1', time: timestamp, body: 'lunch' },
  missed: { type: 'missed', channel: 'workflows', count: 12, reason: 'slow' },
  pong: { type: 'pong', id: 'p1' },
  presence: { type: 'presence', id: 'r6', channel: 'news.team-1', subscribers: 3, partial: true },
  request: { type: 'request', request_id: 'i2-w1.018f6d9a-4a00-7000-8000-000000000001', key: 'approve-42', name: 'approve', body: { amount: 12 }, timeout_ms: 30_000 },
  socket_meta: { ...metaFields, epoch: 1773480413000, resumed: false },
  socket_meta_refused: { ...metaFields, epoch: 1773480413000, resumed: false, reason: 'expired' },
  socket_meta_resumed: {
    ...metaFields, epoch: 1773480413001, resumed: true,
    tasks: [{ task_id, state: 'running' }, { task_id: 'build-old', state: 'finished' }, { task_id: 'build-lost', state: 'unknown' }],
  },
  subscribed: { type: 'subscribed', id: 'r4', channel: 'workflow.build-7f3a', snapshot: 1 },
  unsubscribed: { type: 'unsubscribed', id: 'r5', channel: 'workflow.build-7f3a' },
};

const fromClient: Record<string, ClientMessage> = {
  ack: { type: 'ack', tasks: [position] },
  cancel: { type: 'cancel', id: 'r2', task_id, kind: 'go-build' },
  confirm: { type: 'confirm', epoch: 1773480413001 },
  hello: { type: 'hello' },
  hello_all: { type: 'hello', auth: 'eyJ.auth.sig', token: 'eyJ.resume.sig', tasks: [position, { task_id: 'build-new', attempt: 0, run_id: '', next: 0 }] },
  log_read: { type: 'log_read', id: 'r3', task_id, runner: 'r1', run_id: position.run_id, from_line: 41 },
  ping: { type: 'ping', id: 'p1' },
  presence_ask: { type: 'presence', id: 'r6', channel: 'news.team-1' },
  reply: { type: 'reply', id: 'r7', request_id: 'i2-w1.018f6d9a-4a00-7000-8000-000000000001', body: { approved: true } },
  submit: { type: 'submit', id: 'r1', task_id, kind: 'go-build', params: { repo: '/srv/git/app', ref: 'main', packages: ['./...'] } },
  submit_high: { type: 'submit', id: 'r1', task_id, kind: 'go-build', priority: 'high' },
  subscribe: { type: 'subscribe', id: 'r4', channel: 'workflow.build-7f3a', grant: 'eyJ.grant.sig' },
  unsubscribe: { type: 'unsubscribe', id: 'r5', channel: 'workflow.build-7f3a' },
};

for (const name of index.server) {
  test(`the server's ${name} is read as Go writes it`, () => {
    const got = decode(read(name));
    if (got?.type === 'event') delete (got as TaskEvent & { body: { client_id?: string } }).body.client_id; // for readers of AMQP
    assert.deepEqual(got, fromServer[name]);
  });
}

for (const name of index.client) {
  test(`the client's ${name} is written as Go reads it`, () => {
    assert.deepEqual(JSON.parse(JSON.stringify(fromClient[name])), JSON.parse(read(name)));
  });
}

test('what is no message is passed over; one of a later version is not', () => {
  for (const frame of ['', 'null', '7', '[]', '{', '{"x":1}', new ArrayBuffer(2), undefined]) {
    assert.equal(decode(frame), undefined);
  }
  assert.deepEqual(decode('{"type":"later"}'), { type: 'later' });
  const event = read('event_step');
  for (const bad of ['"seq": "5"', '"seq": 5.5', '"seq": 1e300', '"seq": null']) {
    assert.equal(decode(event.replace('"seq": 5', bad)), undefined, bad);
  }
});
