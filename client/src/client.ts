import { delay, verdict } from './backoff.ts';
import type { BackoffOptions } from './backoff.ts';
import { Claim } from './claim.ts';
import { Link, fits } from './link.ts';
import { maxLogTries } from './log.ts';
import { further } from './order.ts';
import { here, uuid } from './platform.ts';
import type { Platform, SessionStorage } from './platform.ts';
import { Store } from './store.ts';
import { Feed, Task, TaskError } from './task.ts';
import { maxOpenTasks, maxPositions } from './wire.ts';
import type { LogLines, Position, Priority, Refused, ServerMessage, SocketMeta, Submit, TaskEvent, WireError } from './wire.ts';

/** Positions are acknowledged after so many events or milliseconds, and when the page goes away. */
export const ackEvery = 32;
export const ackMs = 250;
/** Tasks that are over, as many as are remembered. */
export const maxOver = 200;
/** A socket that lived this long ends a row of retries. */
export const steadyMs = 5_000;

export interface Options extends BackoffOptions {
  /** ws, wss, http or https, or relative to the page. Default '/v1/ws'. */
  url?: string;
  /** Who the user is, where the server asks: a token, or how to get a fresh one for each socket. */
  auth?: string | (() => string | Promise<string>);
  /** How load balancers find the worker again: by their cookie (default), or by ?route= in the URL. */
  affinity?: 'cookie' | 'route';
  /** Retries in a row before the client gives up. Default: it does not. */
  maxRetries?: number;
  /** Where the session survives a reload. Default sessionStorage; null keeps it in memory. */
  storage?: SessionStorage | null;
  /** Prefix of the keys in storage; two clients of one page need two. Default 'wscluster'. */
  storageKey?: string;
  /** The world around the client, for tests and unusual places. */
  platform?: Partial<Platform>;
}

export type State =
  | { name: 'idle' }
  /** attempt counts from 0: the retries in a row before this socket. */
  | { name: 'connecting'; attempt: number }
  | { name: 'open'; meta: SocketMeta }
  /** The next attempt begins in delayMs; the last socket ended with code and reason. */
  | { name: 'waiting'; attempt: number; delayMs: number; code: number; reason: string }
  /** The client will not connect again by itself. */
  | { name: 'closed'; code: number; reason: string };

export interface ClientEvents {
  state: State;
  /** Each socket_meta, also those that renew the token of a live socket. */
  meta: SocketMeta;
  /** A task that was open before the reload; told before its events. Attach handlers in the listener. */
  task: Task;
  /** What the application may want to log: a handler or auth threw, the storage refused, a stray error frame. */
  error: unknown;
}

/**
 * Client keeps one session with a cluster: it connects, comes back after every cut, and gives each event
 * of each task to the application exactly once and in order, also over a reload of the page.
 *
 * Nothing happens before connect. Listeners attached before it miss nothing.
 */
export class Client {
  #o: Options;
  #platform: Platform;
  #store: Store;
  #claim: Claim;
  #state: State = { name: 'idle' };
  #meta: SocketMeta | undefined;
  #listeners = new Map<string, Set<(v: never) => unknown>>();
  #feeds = new Map<string, Feed>(); // open tasks, at most maxOpenTasks
  #over = new Set<string>(); // the last maxOver tasks that have ended, or of which events were acknowledged by name
  #restored = false; // the stored session was taken up, or found to be another page's
  #life = 0; // counts connect, close and every socket: what began in an earlier life is void
  #link: Link | undefined;
  #attempt = 0;
  #openedAt = 0;
  #retry: unknown;
  #retryAsked = false; // the server named the time of the retry
  #acks = new Map<string, Position>();
  #ackCount = 0;
  #ackTimer: unknown;
  #page: AbortController | undefined; // ends the listening to the page

  constructor(options: Options = {}) {
    this.#o = options;
    this.#platform = { ...here(), ...options.platform };
    const storage = options.storage === undefined ? this.#platform.storage : options.storage;
    this.#store = new Store(storage ?? undefined, options.storageKey ?? 'wscluster', (e) => this.#emit('error', e));
    this.#claim = new Claim(this.#platform);
  }

  get state(): State {
    return this.#state;
  }

  /** The last socket_meta; undefined before the first. */
  get meta(): SocketMeta | undefined {
    return this.#meta;
  }

  /** The tasks that have not ended, oldest first. */
  get tasks(): Task[] {
    return Array.from(this.#feeds.values(), (f) => f.task);
  }

  on<K extends keyof ClientEvents>(name: K, fn: (v: ClientEvents[K]) => unknown): () => void {
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(fn));
    return () => void set.delete(fn);
  }

  /** Connects, and stays connected until close or until the server says to stop. Harmless if connected. */
  connect(): void {
    if (this.#state.name !== 'idle' && this.#state.name !== 'closed') return;
    this.#attempt = 0;
    this.#listen();
    this.#dial();
  }

  /** Acknowledges what the application has and disconnects. Open tasks go on and stay stored. */
  close(): void {
    this.#hangUp(1000);
    this.#enter({ name: 'closed', code: 1000, reason: 'closed by the application' });
  }

  /**
   * Asks for a task and returns its handle at once. Until the server has accepted it, it is sent again on
   * every new socket, also after a reload, under the same ID; the server runs it once. So it is after a
   * refusal that leaves in doubt whether it is stored (unavailable, overloaded, internal): after the time
   * that the server names, or with the backoff of the sockets, for as long as the client lives; each such
   * refusal is told to the error listeners. An event of the task stands for its acceptance. params must be
   * JSON. Throws a TaskError if it is certain to be refused: a bad or taken ID, a bad kind, more than
   * 64 KiB, more than 100 open tasks; or if nothing more would come of it (over): this client saw the task
   * end, or acknowledged events of it that were nobody's. Then take a new ID. A task of priority high is taken
   * before normal ones of all kinds.
   */
  submit(kind: string, params: object = {}, options: { taskId?: string; priority?: Priority } = {}): Task {
    const id = options.taskId ?? uuid(this.#platform.now());
    const refuse = (code: string, message: string) => {
      throw new TaskError({ code, message, retryable: code === 'too_many_tasks' });
    };
    if (!/^\w[\w.-]{0,63}$/.test(id)) refuse('bad_frame', `task ID ${id} must be 1 to 64 of [A-Za-z0-9_.-], not led by . or -`);
    if (!/^[a-z0-9-]{1,64}$/.test(kind)) refuse('bad_frame', `kind ${kind} must be 1 to 64 of [a-z0-9-]`);
    if (this.#feeds.has(id)) refuse('conflict', `task ${id} is open already`);
    if (this.#over.has(id)) refuse('over', `task ${id} is over; submit under a new ID`);
    if (this.#feeds.size >= maxOpenTasks) refuse('too_many_tasks', `${maxOpenTasks} tasks are open; wait for one to end`);
    if (!fits(submitMessage(id, kind, params, options.priority))) refuse('frame_too_large', 'a submit must fit into 64 KiB');
    const feed = this.#addFeed(kind, { task_id: id, attempt: 0, run_id: '', next: 0 }, params, options.priority);
    this.#persist(feed);
    this.#ask(feed);
    return feed.task;
  }

  // ---- connecting

  #dial(): void {
    const life = ++this.#life;
    this.#enter({ name: 'connecting', attempt: this.#attempt });
    void this.#prepare().then(
      (auth) => life === this.#life && this.#open(auth),
      (e) => {
        this.#emit('error', e);
        if (life === this.#life) this.#gone(1006, 'auth failed', 0);
      },
    );
  }

  async #prepare(): Promise<string | undefined> {
    const stored = this.#store.meta();
    const mine = !stored || (await this.#claim.take(stored.client_id));
    if (!mine) this.#store.clear();
    if (!this.#restored) {
      this.#restored = true;
      if (mine) this.#restore();
    }
    for (const f of this.#feeds.values()) this.#persist(f);
    const { auth } = this.#o;
    return typeof auth === 'function' ? auth() : auth;
  }

  #restore(): void {
    const submitted = [...this.#feeds.values()];
    this.#feeds.clear();
    for (const t of this.#store.tasks()) {
      this.#emit('task', this.#addFeed(t.kind, t.position, t.params, t.priority).task);
    }
    for (const f of submitted) this.#feeds.set(f.task.id, f);
  }

  #open(auth: string | undefined): void {
    const link = new Link(this.#url(), this.#platform, {
      opened: () => {
        const token = this.#store.meta()?.token;
        const tasks = this.#accepted().map((f) => f.order.position);
        link.send({ type: 'hello', ...(auth && { auth }), ...(token && { token }), ...(tasks.length && { tasks }) });
      },
      message: (m, chars) => this.#receive(m, chars),
      gone: (code, reason, retryAfterMs) => this.#gone(code, reason, retryAfterMs),
    });
    this.#link = link;
  }

  #url(): string {
    const url = new URL(this.#o.url ?? '/v1/ws', this.#platform.base);
    url.protocol = url.protocol.replace('http', 'ws');
    const route = this.#store.meta()?.route;
    if (this.#o.affinity === 'route' && route) url.searchParams.set('route', route);
    return url.href;
  }

  #gone(code: number, reason: string, retryAfterMs: number): void {
    const steady = this.#state.name === 'open' && this.#platform.now() - this.#openedAt >= steadyMs;
    this.#drop();
    if (steady) this.#attempt = 0;
    const v = verdict(code);
    if (v === 'stop' || this.#attempt >= (this.#o.maxRetries ?? Infinity)) {
      this.#enter({ name: 'closed', code, reason });
      return;
    }
    const delayMs = delay(++this.#attempt, v, retryAfterMs, this.#platform.random(), this.#o);
    this.#retryAsked = retryAfterMs > 0;
    this.#retry = this.#platform.setTimeout(() => this.#dial(), delayMs);
    this.#enter({ name: 'waiting', attempt: this.#attempt, delayMs, code, reason });
  }

  #hangUp(code?: number): void {
    this.#flush();
    for (const f of this.#feeds.values()) {
      this.#platform.clearTimeout(f.retry);
      f.retry = undefined; // due with the next socket
    }
    this.#link?.close(code);
    this.#drop();
    this.#claim.release();
  }

  #drop(): void {
    this.#life++;
    this.#link = undefined;
    this.#platform.clearTimeout(this.#retry);
  }

  // ---- receiving

  #receive(m: ServerMessage, chars: number): void {
    switch (m.type) {
      case 'socket_meta':
        return this.#welcome(m);
      case 'event':
        return this.#event(m, chars);
      case 'accepted':
        return this.#accept(this.#feeds.get(m.task_id), { queuePosition: m.queue_position });
      case 'canceling': {
        const feed = this.#feeds.get(m.task_id);
        if (feed) feed.canceling = false;
        return;
      }
      case 'log_lines':
        return this.#lines(m, this.#feeds.get(m.task_id));
      case 'error': {
        if (m.id?.startsWith(cancelPrefix)) return this.#cancelRefused(m);
        if (m.id?.startsWith(logPrefix)) return this.#lines(m, this.#feeds.get(m.task_id ?? ''));
        const feed = this.#feeds.get(m.task_id ?? m.id ?? '');
        if (!feed?.params) return this.#emit('error', new TaskError(m));
        // Too many tasks are refused before the broker is asked: no doubt, unless there was one before.
        if (m.retryable && (feed.doubts || m.code !== 'too_many_tasks')) return this.#postpone(feed, m);
        this.#end(feed);
        feed.fail(m);
      }
    }
  }

  #welcome(m: SocketMeta): void {
    if (this.#state.name === 'connecting' && this.#store.meta() && !m.resumed && !m.reason) {
      // The hello with our token came too late: this session is a stranger's. Ask again.
      this.#link?.close();
      return this.#gone(1006, 'the hello came too late', 0);
    }
    this.#meta = m;
    this.#store.putMeta({ client_id: m.client_id, token: m.token, route: m.route });
    void this.#claim.take(m.client_id);
    this.#emit('meta', m);
    if (this.#state.name !== 'connecting') return;
    // The token is stored: only now may the worker depend on it. It takes nothing else before this.
    if (m.resumed) this.#link?.send({ type: 'confirm', epoch: m.epoch });
    for (const { task_id, state } of m.tasks ?? []) {
      const feed = this.#feeds.get(task_id);
      if (!feed || state === 'running') continue;
      this.#end(feed);
      feed.fail({ code: 'lost', message: `the server calls this task ${state}: nothing more of it will come`, retryable: true });
    }
    this.#openedAt = this.#platform.now();
    this.#enter({ name: 'open', meta: m });
    for (const f of this.#feeds.values()) {
      this.#ask(f);
      this.#cancel(f);
      f.log.asked = false;
      f.pump();
    }
    this.#flush();
  }

  #event(e: TaskEvent, chars: number): void {
    const feed = this.#feeds.get(e.task_id);
    if (!feed) {
      // Of a task that has ended here, or that another page began: by name. It does not come again.
      if (e.durable) {
        this.#remember(e.task_id);
        this.#ack({ task_id: e.task_id, attempt: e.attempt, run_id: e.run_id, next: e.seq + 1 });
      }
      return;
    }
    this.#accept(feed, {});
    if (!feed.take(e, chars)) this.#ack(feed.order.wanted);
  }

  #accept(feed: Feed | undefined, a: { queuePosition?: number | undefined }): void {
    if (!feed?.params) return;
    feed.accept(a);
    this.#persist(feed);
  }

  // ---- tasks and acknowledgements

  /** Submits a task, if the server does not have it, and it is open and due. */
  #ask(f: Feed): void {
    if (!f.params || f.over || f.retry || this.#state.name !== 'open') return;
    this.#link?.send(submitMessage(f.task.id, f.task.kind, f.params, f.priority));
  }

  /** Says that the application wants the task to end, behind its submit. */
  #cancel(f: Feed): void {
    if (!f.canceling || f.over || this.#state.name !== 'open') return;
    this.#link?.send({ type: 'cancel', id: cancelPrefix + f.task.id, task_id: f.task.id, kind: f.task.kind });
  }

  #cancelRefused(m: Refused): void {
    const f = this.#feeds.get(m.task_id ?? '');
    if (f?.canceling && m.retryable) {
      this.#platform.setTimeout(() => this.#cancel(f), delay(1, 'retry', m.retry_after_ms ?? 0, this.#platform.random(), this.#o));
    } else if (f) f.canceling = false;
    this.#emit('error', new TaskError(m));
  }

  /** Asks for the lines of a log that come next. */
  #readLog(f: Feed): void {
    if (this.#state.name !== 'open' || f.params || !f.log.wants) return;
    f.log.asked = true;
    this.#link?.send({ type: 'log_read', id: logPrefix, task_id: f.task.id, ...f.log.request });
  }

  /** A piece of a log, or why there is none: then it is asked for again, or given up. */
  #lines(m: LogLines | Refused, f: Feed | undefined): void {
    if (!f?.log.asked) return;
    if (m.type === 'error' || !f.log.take(m)) {
      f.log.forgetRunner();
      if (f.log.tries++ < maxLogTries) {
        this.#platform.setTimeout(() => {
          f.log.asked = false;
          f.pump();
        }, 500 << f.log.tries);
        return;
      }
      f.log.asked = false;
      f.log.giveUp();
    }
    f.pump();
  }

  /** The broker may have the task or not: forgotten, its events would be acknowledged unseen. */
  #postpone(f: Feed, e: WireError): void {
    this.#platform.clearTimeout(f.retry);
    f.retry = this.#platform.setTimeout(() => {
      f.retry = undefined;
      this.#ask(f);
    }, delay(++f.doubts, 'retry', e.retry_after_ms ?? 0, this.#platform.random(), this.#o));
    this.#emit('error', new TaskError(e));
  }

  #accepted(): Feed[] {
    return [...this.#feeds.values()].filter((f) => !f.params);
  }

  #addFeed(kind: string, position: Position, params: object | undefined, priority: Priority | undefined): Feed {
    const feed = new Feed(kind, position, params, priority, {
      moved: (f) => {
        if (f.order.finished) this.#end(f);
        else this.#persist(f);
        this.#ack(f.order.position);
      },
      fault: (e) => this.#emit('error', e),
      cancel: (f) => this.#cancel(f),
      readLog: (f) => this.#readLog(f),
    });
    this.#feeds.set(position.task_id, feed);
    return feed;
  }

  #persist(f: Feed): void {
    if (this.#restored) this.#store.putTask({ kind: f.task.kind, position: f.order.position, params: f.params, priority: f.priority });
  }

  #end(f: Feed): void {
    this.#feeds.delete(f.task.id);
    this.#store.dropTask(f.task.id);
    if (!f.params) this.#remember(f.task.id); // a refused one may be submitted again
  }

  /** Nothing more will come of this task: a submit under its ID would wait for ever. */
  #remember(id: string): void {
    this.#over.add(id);
    if (this.#over.size > maxOver) this.#over.delete(this.#over.values().next().value!);
  }

  #ack(p: Position): void {
    const known = this.#acks.get(p.task_id);
    this.#acks.set(p.task_id, known ? further(known, p) : p);
    if (++this.#ackCount >= ackEvery) this.#flush();
    else this.#ackTimer ??= this.#platform.setTimeout(() => this.#flush(), ackMs);
  }

  #flush(): void {
    this.#platform.clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    this.#ackCount = 0;
    if (this.#state.name !== 'open') return;
    const all = [...this.#acks.values()];
    this.#acks.clear();
    for (let i = 0; i < all.length; i += maxPositions) {
      this.#link?.send({ type: 'ack', tasks: all.slice(i, i + maxPositions) });
    }
  }

  // ---- the page

  #listen(): void {
    const { window, document } = this.#platform;
    const { signal } = (this.#page = new AbortController());
    window?.addEventListener('pagehide', (e) => this.#pageHide((e as PageTransitionEvent).persisted), { signal });
    window?.addEventListener('pageshow', (e) => this.#pageShow((e as PageTransitionEvent).persisted), { signal });
    window?.addEventListener('online', () => this.#hurry(), { signal });
    document?.addEventListener(
      'visibilitychange',
      () => document.visibilityState === 'visible' && this.#hurry(),
      { signal },
    );
  }

  #pageHide(persisted: boolean): void {
    if (!persisted) {
      this.#flush();
      this.#claim.release();
      return;
    }
    // The browser kills the sockets of a page that it keeps for "back", and tells it too late.
    this.#hangUp();
    this.#enter({ name: 'waiting', attempt: 0, delayMs: 0, code: 1001, reason: 'page hidden' });
  }

  #pageShow(persisted: boolean): void {
    if (persisted && this.#state.name === 'waiting') this.#dial();
  }

  #hurry(): void {
    if (this.#state.name === 'waiting' && !this.#retryAsked) {
      this.#platform.clearTimeout(this.#retry);
      this.#dial();
    } else this.#link?.probe();
  }

  // ---- telling

  #enter(s: State): void {
    this.#state = s;
    if (s.name === 'closed') this.#page?.abort();
    this.#emit('state', s);
  }

  #emit<K extends keyof ClientEvents>(name: K, v: ClientEvents[K]): void {
    const listeners = this.#listeners.get(name);
    if (name === 'error' && !listeners?.size) console.error(v);
    for (const fn of listeners ?? []) {
      try {
        (fn as (v: ClientEvents[K]) => unknown)(v);
      } catch (e) {
        queueMicrotask(() => {
          throw e;
        });
      }
    }
  }
}

/** The request ID of a log_read, whose answer names the task. */
const logPrefix = 'log:';
/** Before the task's ID in the request ID of a cancel, to tell its refusal from that of a submit. */
const cancelPrefix = 'cancel:';

function submitMessage(id: string, kind: string, params: object, priority: Priority | undefined): Submit {
  return { type: 'submit', id, task_id: id, kind, params, ...(priority && { priority }) };
}
