import { webcrypto } from 'node:crypto';
import type { Platform, Socket } from '../src/platform.ts';
import type { ClientMessage, EventName, ServerMessage, SocketMeta, TaskEvent } from '../src/wire.ts';

// Node 18, which is Debian's, has no global crypto; every browser has.
globalThis.crypto ??= webcrypto as Crypto;

/** Lets every promise that can settle do so. */
export const settled = () => new Promise<void>((resolve) => setImmediate(resolve));

/** A socket whose other end is the test. */
export class FakeSocket implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: unknown }) => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  readonly sent: ClientMessage[] = [];
  closedWith: number | undefined;
  closed = false;

  constructor(
    readonly url: string,
    readonly protocol: string,
  ) {}

  send(data: string): void {
    this.sent.push(JSON.parse(data) as ClientMessage);
  }

  close(code?: number): void {
    this.closed = true;
    this.closedWith = code;
  }

  give(m: ServerMessage): void {
    this.onmessage?.({ data: JSON.stringify(m) });
  }

  /** Opens, and answers the hello. */
  async welcome(m: Partial<SocketMeta> = {}): Promise<void> {
    this.onopen?.();
    this.give(meta(m));
    await settled();
  }

  cut(code = 1006, reason = ''): void {
    this.onclose?.({ code, reason });
  }

  of<T extends ClientMessage['type']>(type: T): Extract<ClientMessage, { type: T }>[] {
    return this.sent.filter((m): m is Extract<ClientMessage, { type: T }> => m.type === type);
  }
}

/** One POST of a page; its other end is the test. */
export class FakePost {
  answered = false;
  #settle!: { resolve: (r: Response) => void; reject: (e: unknown) => void };
  #stream!: ReadableStreamDefaultController<Uint8Array>;
  readonly response = new Promise<Response>((resolve, reject) => (this.#settle = { resolve, reject }));

  constructor(
    readonly url: string,
    readonly init: RequestInit,
  ) {
    init.signal?.addEventListener('abort', () => {
      this.cut();
      this.#stream?.error(new DOMException('aborted', 'AbortError'));
    });
  }

  get message(): ClientMessage {
    return JSON.parse(this.init.body as string) as ClientMessage;
  }

  header(name: string): string | null {
    return new Headers(this.init.headers).get(name);
  }

  get aborted(): boolean {
    return !!this.init.signal?.aborted;
  }

  async answer(status: number): Promise<void> {
    this.answered = true;
    const stream = status === 200 && new ReadableStream<Uint8Array>({ start: (c) => void (this.#stream = c) });
    this.#settle.resolve(new Response(stream || null, { status }));
    await settled();
  }

  /** No answer comes: the network is gone. */
  cut(): void {
    if (!this.answered) this.#settle.reject(new TypeError('network error'));
    this.answered = true;
  }

  async write(text: string | Uint8Array): Promise<void> {
    this.#stream.enqueue(typeof text === 'string' ? new TextEncoder().encode(text) : text);
    await settled();
  }

  give(m: ServerMessage): Promise<void> {
    return this.write(`data: ${JSON.stringify(m)}\n\n`);
  }

  async end(): Promise<void> {
    this.#stream.close();
    await settled();
  }

  async welcome(m: Partial<SocketMeta> = {}): Promise<void> {
    await this.answer(200);
    await this.give(meta(m));
  }
}

/** Storage as a page has it: survives a new World made from it. */
export class FakeStorage {
  #map = new Map<string, string>();
  full = false;
  get length(): number {
    return this.#map.size;
  }
  key(i: number): string | null {
    return [...this.#map.keys()][i] ?? null;
  }
  getItem(k: string): string | null {
    return this.#map.get(k) ?? null;
  }
  setItem(k: string, v: string): void {
    if (this.full) throw new DOMException('full', 'QuotaExceededError');
    this.#map.set(k, v);
  }
  removeItem(k: string): void {
    this.#map.delete(k);
  }
  copy(): FakeStorage {
    const c = new FakeStorage();
    for (const [k, v] of this.#map) c.setItem(k, v);
    return c;
  }
}

/** The Web Locks of one origin, shared by its pages. */
export class FakeLocks {
  #held = new Set<string>();
  #queue: { name: string; grant: () => void }[] = [];

  async request(name: string, o: { signal?: AbortSignal }, fn: () => Promise<unknown>): Promise<unknown> {
    if (this.#held.has(name)) {
      await new Promise<void>((grant, reject) => {
        const waiting = { name, grant };
        this.#queue.push(waiting);
        o.signal?.addEventListener('abort', () => {
          this.#queue = this.#queue.filter((w) => w !== waiting);
          reject(o.signal!.reason as Error);
        });
      });
    }
    this.#held.add(name);
    try {
      return await fn();
    } finally {
      this.#held.delete(name);
      const i = this.#queue.findIndex((w) => w.name === name);
      if (i >= 0) this.#queue.splice(i, 1)[0]!.grant();
    }
  }
}

/** One page: its clock stands still until advance, its sockets are FakeSockets. */
export class World {
  readonly sockets: FakeSocket[] = [];
  readonly posts: FakePost[] = [];
  /** Messages beside a stream are taken at once. */
  taking = false;
  readonly window = new EventTarget();
  readonly document = Object.assign(new EventTarget(), { visibilityState: 'visible' });
  now = Date.UTC(2026, 0, 1);
  random = 0.5;
  #timers = new Set<{ at: number; fn: () => void }>();

  constructor(
    readonly storage = new FakeStorage(),
    readonly locks = new FakeLocks(),
  ) {}

  get platform(): Platform {
    return {
      connect: (url, protocol) => {
        const s = new FakeSocket(url, protocol);
        this.sockets.push(s);
        return s;
      },
      fetch: (url, init) => {
        const p = new FakePost(url, init);
        this.posts.push(p);
        if (this.taking && url.endsWith('/messages')) void p.answer(202);
        return p.response;
      },
      now: () => this.now,
      random: () => this.random,
      setTimeout: (fn, ms) => {
        const t = { at: this.now + ms, fn };
        this.#timers.add(t);
        return t;
      },
      clearTimeout: (t) => void this.#timers.delete(t as { at: number; fn: () => void }),
      base: 'https://ci.example/app/',
      storage: this.storage,
      locks: this.locks as unknown as LockManager,
      window: this.window,
      document: this.document,
    };
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** The newest event stream. */
  get stream(): FakePost {
    return this.posts.filter((p) => p.url.endsWith('/events')).at(-1)!;
  }

  /** The messages that were sent beside a stream, and their answers. */
  get messages(): FakePost[] {
    return this.posts.filter((p) => p.url.endsWith('/messages'));
  }

  /** The newest socket. */
  get socket(): FakeSocket {
    return this.sockets.at(-1)!;
  }

  async advance(ms: number): Promise<void> {
    const end = this.now + ms;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter((t) => t.at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers.delete(due);
      this.now = Math.max(this.now, due.at);
      due.fn();
    }
    this.now = end;
  }

  page(name: 'pagehide' | 'pageshow', persisted: boolean): void {
    this.window.dispatchEvent(Object.assign(new Event(name), { persisted }));
  }
}

export const run1 = '018f6d9a-30aa-7b11-9c22-000000000001';
export const run2 = '018f6d9a-30aa-7b11-9c22-000000000002';

export function meta(m: Partial<SocketMeta> = {}): SocketMeta {
  return {
    type: 'socket_meta', client_id: 'c1', server_id: 'i1-w1', epoch: 1, token: 'token-1', route: 'route-1',
    heartbeat_ms: 15_000, resume_window_ms: 600_000, resumed: false, ...m,
  };
}

/** Event seq of task t after prev: progress is transient, result and error are final. */
export function event(seq: number, prev: number, name: EventName = 'log', over: Partial<TaskEvent> = {}): TaskEvent {
  return {
    type: 'event', task_id: 't', attempt: 1, run_id: run1, seq, prev, event: name,
    durable: name !== 'progress', last: name === 'result' || name === 'error',
    body: name === 'log' ? { first_line: seq, lines: ['line ' + seq] } : name === 'result' ? { value: 42 } : {},
    ...over,
  } as TaskEvent;
}

/** A gap of task t that stands in for the durable events from to seq, after prev. */
export function gap(from_seq: number, seq: number, prev: number, over: Partial<TaskEvent> = {}): TaskEvent {
  return event(seq, prev, 'gap', { body: { from_seq, reason: 'expired', timestamp: '2026-01-01T00:00:00.000Z' }, ...over } as Partial<TaskEvent>);
}
