// A worker inside the page, put there before the page's own script: it speaks docs/PROTOCOL.md through a
// WebSocket class of its own. Event i of a task is a function of its kind and i, so that all the worker has
// to remember over a reload is when a task began and what was acknowledged.
(() => {
  const text = (first, lines) => ({ event: 'log', body: { first_line: first, lines } });
  const step = (i, of, name, status) => ({ event: 'step', body: { workflow_id: '', status, current_step: i, total_steps: of, message: name } });
  const many = (first, n) => text(first, Array.from({ length: n }, (_, i) => `\x1b[3${(first + i) % 8}mline\x1b[0m ${first + i}`));
  const flood = (lines) => [
    { event: 'started', body: { kind: 'flood', runner: 'r1', total_steps: 0 } },
    ...Array.from({ length: lines / 250 }, (_, i) => many(1 + i * 250, 250)),
    { event: 'result', body: { value: null, last_line: lines } },
  ];
  const hostile = [
    '<img src=x onerror="window.harmed=1"><script>window.harmed=2</script>',
    '\x1b]8;;javascript:window.harmed=3\x07link\x1b]8;;\x07 \x1b]0;title\x07\x1b[2J\x1b[31mred\x1b[0m\x1b[',
    '  spaces\tand a tab ',
    '',
    '</div></div><a href="javascript:window.harmed=4">click</a>&lt;b&gt;<svg onload=window.harmed=5>',
    '\x1b]8;;javascript:window.harmed=6\x1b\\here\x1b]8;;\x1b\\ \x1b]8;;https://evil.example/\x1b\\there',
    'a\x1b[1;1Hb\x1b[99Ac\x1b[2K\x1b[?1049hd\x1b]52;c;aWQ=\x07\x1bPq#0\x1b\\e\x1bc\x07\x9b',
    '\x1b[38;2;1;2;3;background:url(//evil.example/)mstyle',
  ];
  const evil = '<img src=x onerror="window.harmed=7"><script>window.harmed=8</script>\x1b]8;;javascript:window.harmed=9\x07\x1b[2J"\'><b>';
  const told = [
    { event: 'started', body: { kind: evil, runner: evil, total_steps: 2 } },
    step(1, 2, evil, 'running'),
    text(1, hostile),
    { event: 'progress', body: { workflow_id: '', status: 'running', current_step: 1, total_steps: 2, message: evil } },
    { event: 'artifact', body: { name: evil, content_type: evil, size_bytes: 1, sha256: evil } },
    step(1, 2, evil, 'failed'),
  ];
  const stories = {
    // four steps, each with progress and 25 log events of 10 lines; the first four lines are hostile
    build: [
      { event: 'started', body: { kind: 'build', runner: 'r1', total_steps: 4 } },
      text(1, hostile.slice(0, 4)),
      ...['clone', 'go vet', 'go build', 'go test ./pkg/socketmeta ./pkg/wire'].flatMap((name, s) => [
        step(s + 1, 4, name, 'running'),
        ...Array.from({ length: 25 }, (_, i) => [
          many(5 + s * 250 + i * 10, 10),
          { event: 'progress', body: { workflow_id: '', status: 'running', current_step: i + 1, total_steps: 25, message: `ok pkg${i}` } },
        ]).flat(),
        step(s + 1, 4, name, 'succeeded'),
      ]),
      { event: 'artifact', body: { name: 'of-a-publisher-that-says-no-size' } },
      { event: 'artifact', body: { name: 'app.tar.gz', content_type: 'application/gzip', size_bytes: 1048576, sha256: 'ab'.repeat(32) } },
      { event: 'result', body: { value: { packages: 60, failed: 0 }, last_line: 1004 } },
    ],
    // all that a runner says is a stranger's
    'hostile-end': [...told, { event: 'error', body: { code: 'failed', message: evil, retryable: true, last_line: 8 } }],
    'hostile-result': [...told, { event: 'result', body: { value: { [evil]: evil }, last_line: 8 } }],
    form: [{ event: 'started', body: { kind: 'form', runner: 'r1', total_steps: 0 } }, { event: 'result', body: { value: null, last_line: 0 } }],
    late: [{ event: 'started', body: { kind: 'late', runner: 'r1', total_steps: 0 } }, many(1, 3), { event: 'result', body: { value: null, last_line: 3 } }],
    flood: flood(20_000),
    'long-flood': flood(100_000),
    // 35,000,000 characters: more than a log shows, and more than the journal keeps
    heavy: [
      { event: 'started', body: { kind: 'heavy', runner: 'r1', total_steps: 0 } },
      ...Array.from({ length: 140 }, (_, i) => text(i + 1, ['x'.repeat(250_000)])),
      { event: 'result', body: { value: null, last_line: 140 } },
    ],
    // away: after three lines the events 3 to 8 are given up, and with them the lines 4 to 28; then it goes on
    away: [
      { event: 'started', body: { kind: 'away', runner: 'r1', total_steps: 0 } },
      many(1, 3),
      ...Array.from({ length: 5 }, () => ({ event: 'gone' })),
      { event: 'gap', body: { from_seq: 3, reason: 'expired' } },
      many(29, 3),
      text(32, ['wide '.repeat(100)]),
      { event: 'result', body: { value: null, last_line: 32 } },
    ],
    vanished: [
      { event: 'started', body: { kind: 'vanished', runner: 'r1', total_steps: 0 } },
      many(1, 3),
      { event: 'gap', body: { from_seq: 3, reason: 'caps' } },
    ],
    broken: [
      { event: 'started', body: { kind: 'broken', runner: 'r1', total_steps: 2 } },
      step(1, 2, 'go vet', 'running'),
      text(1, ['vet: undefined: x']),
      step(1, 2, 'go vet', 'failed'),
      { event: 'error', body: { code: 'failed', message: 'step go vet: exit status 1', retryable: true, last_line: 1 } },
    ],
  };
  const everyMs = { build: 8, form: 5, late: 2000, flood: 1, 'long-flood': 1, heavy: 1, broken: 5, away: 5, vanished: 5, 'hostile-end': 5, 'hostile-result': 5 };
  const run = '018f6d9a-30aa-7b11-9c22-abcdefabcdef';
  const stored = JSON.parse(sessionStorage.getItem('fake-worker') ?? '{"tasks":{},"epoch":1}');
  const save = () => sessionStorage.setItem('fake-worker', JSON.stringify(stored));
  const begun = performance.timeOrigin;

  window.harm = [];
  addEventListener('securitypolicyviolation', (e) => harm.push(`${e.violatedDirective} ${e.blockedURI}`));
  addEventListener('error', (e) => harm.push(e.message));
  window.sockets = [];

  // What the page asks for over HTTP. The kind "form" has a field of each shape; earlier tasks are there once the test says so.
  const kinds = [
    { kind: 'form', runners: 1, schemas: 1, schema: {
      title: 'a field of each shape', type: 'object', additionalProperties: false, required: ['repo', 'mode'],
      properties: {
        count: { type: 'integer', minimum: 1, maximum: 1000000, default: 3, description: 'how many' },
        env: { type: 'object' },
        fast: { type: 'boolean', description: 'leave the tests out' },
        mode: { enum: ['debug', 'release'] },
        packages: { type: 'array', items: { type: 'string', pattern: '^\\.' }, default: ['./a', './b'] },
        repo: { type: 'string', maxLength: 40, pattern: '^[a-z/]+$', description: 'absolute path of a Git repository on the runner’s machine' },
      },
    } },
    { kind: 'build', runners: 2, schemas: 1, schema: { additionalProperties: false, properties: { ref: { type: 'string' } } } },
    { kind: 'unsaid', runners: 1, schemas: 0 },
  ];
  const before = (minutes) => new Date(Date.UTC(2026, 2, 14, 9, 26) - minutes * 60_000).toISOString();
  const earlierRun = (i, status, more = {}) => ({
    task_id: `earlier-${i}`, kind: i === 3 ? 'a-kind-with-a-name-as-long-as-a-name-of-a-kind-may-ever-be-64-bytes' : 'build', status, attempt: 1, run_id: run, runner: 'r1', submitted_at: before(i * 90),
    started_at: before(i * 90), ended_at: status === 'running' ? undefined : before(i * 90 - 3), current_step: 4, total_steps: 4, last_line: 3, log_bytes: 30, ...more,
  });
  const earlier = [
    earlierRun(1, 'succeeded'),
    earlierRun(2, 'failed', { error: { code: 'failed', message: 'step go vet: exit status 1', retryable: true } }),
    earlierRun(3, 'running'),
    earlierRun(4, 'failed', { error: { code: 'canceled', message: 'the task was canceled', retryable: false } }),
  ];
  const answers = {
    '/v1/kinds': () => ({ kinds }),
    '/v1/tasks?limit=50': () => (sessionStorage.getItem('fake-earlier') ? { tasks: earlier, more: true, missing_runners: ['r7'] } : { tasks: [], more: false }),
    [`/v1/tasks?limit=50&before=${encodeURIComponent(before(4 * 90))}`]: () => ({ tasks: [earlierRun(5, 'succeeded')], more: false }),
  };
  window.fetch = async (path, init) => {
    if (path !== '/v1/kinds' && init?.headers['X-Socket-Meta'] !== 'token') return Response.json({ detail: 'no token' }, { status: 401 });
    if (answers[path]) return Response.json(answers[path]());
    if (path.startsWith('/v1/tasks/earlier-')) return new Response([1, 2, 3].map((line) => JSON.stringify({ line, text: `line ${line} of ${path.slice(10, 19)}` }) + '\n').join(''));
    return Response.json({ detail: 'no task runner that can be reached has this log' }, { status: 404 });
  };

  window.WebSocket = class {
    constructor(url, protocol) {
      Object.assign(this, { url, protocol, readyState: 0 });
      sockets.push(this);
      setTimeout(() => ((this.readyState = 1), this.onopen?.()));
    }
    close(code = 1000, reason = '') {
      clearInterval(this.timer);
      this.readyState = 3;
      setTimeout(() => this.onclose?.({ code, reason }));
    }
    give(m) {
      this.onmessage?.({ data: JSON.stringify(m) });
    }
    send(data) {
      const m = JSON.parse(data);
      if (m.type === 'hello') this.hello(m);
      else if (m.type === 'confirm' ? m.epoch !== this.unconfirmed : this.unconfirmed) harm.push(`${data} is not the confirm of ${this.unconfirmed}`);
      if (m.type === 'confirm') this.begin();
      if (m.type === 'ping') this.give({ type: 'pong' });
      if (m.type === 'log_read') this.readLog(m);
      if (m.type === 'ack') for (const p of m.tasks) if (stored.tasks[p.task_id]) stored.tasks[p.task_id].next = p.next;
      if (m.type === 'submit') {
        if (m.params?.repo?.startsWith('/refused')) {
          return this.give({ type: 'error', id: m.id, task_id: m.task_id, code: 'bad_params', message: 'repo is no directory in the runner’s repository roots', retryable: false });
        }
        if (!stories[m.kind]) {
          return this.give({ type: 'error', id: m.id, task_id: m.task_id, code: 'unknown_kind', message: `no task runner has ever offered kind "${m.kind}"`, retryable: false });
        }
        stored.tasks[m.task_id] = { kind: m.kind, params: m.params, at: Date.now(), next: 1 };
        this.sent[m.task_id] = 0;
        this.give({ type: 'accepted', id: m.id, task_id: m.task_id, queue_position: 0 });
      }
      save();
    }
    /** Lines from m.from_line on, as far as none is missing; a page asks for them that comes back behind the last live copy. */
    readLog(m) {
      const lines = [];
      for (const { event, body } of stories[stored.tasks[m.task_id]?.kind] ?? []) if (event === 'log') body.lines.forEach((l, i) => (lines[body.first_line + i] = l));
      const found = [];
      for (let n = m.from_line; n in lines && found.length < 500; n++) found.push(lines[n]);
      if (!found.length) return this.give({ type: 'error', id: m.id, task_id: m.task_id, code: 'log_unavailable', message: 'no task runner that can be reached has this log', retryable: true });
      this.give({ type: 'log_lines', id: m.id, task_id: m.task_id, attempt: 1, run_id: run, runner: 'r1', first_line: m.from_line, lines: found, last_line: lines.length - 1, ended: true });
    }
    hello(m) {
      const open = m.tasks ?? [];
      this.sent = Object.fromEntries(open.map((p) => [p.task_id, Math.max(0, p.next - 2)])); // one event too many
      if (m.token) this.unconfirmed = stored.epoch;
      this.give({
        type: 'socket_meta', client_id: '018f6d9a-2b3c-7d4e-8f50-123456789abc', server_id: 'i1-w3', epoch: stored.epoch++,
        token: 'token', route: 'route', heartbeat_ms: 15000, resume_window_ms: 600000, resumed: !!m.token,
        tasks: open.map((p) => ({ task_id: p.task_id, state: stored.tasks[p.task_id] ? 'running' : 'unknown' })),
      });
      if (!m.token) this.begin();
    }
    begin() {
      this.unconfirmed = 0;
      this.timer = setInterval(() => this.emit(), 4);
    }
    emit() {
      for (const [id, sent] of Object.entries(this.sent)) {
        const { kind, at, next } = stored.tasks[id] ?? {};
        const story = stories[kind] ?? [];
        // at most 256 events and 256 KiB beyond what is acknowledged, as the worker's own window
        const late = Math.min(story.length, Math.ceil((Date.now() - at) / everyMs[kind]), next + 255);
        let due = next - 1;
        for (let bytes = 0; due < late && bytes < 256 << 10; due++) bytes += JSON.stringify(story[due]).length;
        for (let i = sent; i < due; i++) this.event(id, story, i);
        this.sent[id] = Math.max(sent, due);
      }
    }
    event(id, story, i) {
      const { event, body } = story[i];
      if (event === 'gone') return;
      let prev = i; // seq is i + 1
      while (prev > 0 && ['progress', 'gone'].includes(story[prev - 1].event)) prev--;
      this.give({
        type: 'event', task_id: id, attempt: 1, run_id: run, seq: i + 1, prev, event, durable: event !== 'progress',
        last: i === story.length - 1, body: { timestamp: new Date(stored.tasks[id].at + i * 40).toISOString(), ...body, ...('workflow_id' in body && { workflow_id: id }) },
      });
    }
  };

  /** Resolves when condition is true of the page. */
  window.until = (condition) =>
    new Promise((resolve) => {
      const look = () => (condition() ? resolve(true) : requestAnimationFrame(look));
      look();
    });
  window.$ = (id) => document.querySelector(`[data-testid="${id}"]`);
  window.$$ = (id) => [...document.querySelectorAll(`[data-testid="${id}"]`)];
  window.lines = () => [...document.querySelectorAll('.line')].map((l) => Number(l.dataset.n));
  window.count = () => document.getElementsByClassName("line").length; // quick
  window.begun = begun;
  /** The contrast of one element's colour on another's background (WCAG 2: 4.5 is enough for text). */
  window.contrast = (ink, paper) => {
    const light = (rgb) => {
      const [r, g, b] = rgb.match(/[\d.]+/g).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const both = [light(getComputedStyle(ink).color), light(getComputedStyle(paper).backgroundColor)];
    return Math.max(...both) / Math.min(...both);
  };
})();
