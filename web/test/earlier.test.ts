import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readPage } from '../src/earlier.ts';

const run = {
  task_id: 't1', kind: 'make', status: 'failed', attempt: 1, run_id: 'r', runner: 'r1', submitted_at: '2026-03-14T09:26:50.000Z',
  started_at: '2026-03-14T09:26:51.000Z', ended_at: '2026-03-14T09:26:53.000Z', current_step: 2, total_steps: 4, last_line: 43, log_bytes: 1,
  error: { code: 'failed', message: 'no', retryable: true },
};

test('a page of the list becomes views that say how each task stands', () => {
  const page = readPage({
    tasks: [run, { ...run, error: undefined, status: 'succeeded' }, { ...run, error: { ...run.error, code: 'canceled' } }, { ...run, error: undefined, status: 'running', ended_at: undefined }, { ...run, error: undefined, status: 'given_up' }],
    more: true,
    missing_runners: ['r2', 7],
  });
  assert.deepEqual(page.tasks.map((t) => t.state), ['failed', 'succeeded', 'canceled', 'running', 'queued']);
  const [first] = page.tasks;
  assert.deepEqual([first?.id, first?.kind, first?.runner, first?.lastLine, first?.error?.message, first!.endedAt! - first!.startedAt!], ['t1', 'make', 'r1', 43, 'no', 2000]);
  assert.deepEqual([page.next, page.missing], ['2026-03-14T09:26:50.000Z', ['r2']]);
});

test('what is not of the shape of a list is passed over', () => {
  for (const bad of [undefined, null, 7, {}, { tasks: 7, more: true }, { tasks: [null, 7, { task_id: 't' }, { ...run, submitted_at: 'soon' }] }]) {
    assert.deepEqual(readPage(bad), { tasks: [], next: '', missing: [] });
  }
  assert.equal(readPage({ tasks: [{ task_id: 't', kind: 'k', submitted_at: run.submitted_at, status: 'new word' }] }).tasks[0]?.state, 'lost');
});
