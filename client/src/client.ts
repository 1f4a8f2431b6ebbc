import { delay, verdict } from './backoff.ts';
import type { BackoffOptions } from './backoff.ts';
import { Claim } from './claim.ts';
import { Link, fits } from './link.ts';
import type { Ending } from './link.ts';
import { further } from './order.ts';
import { here, newID } from './platform.ts';
import type { Platform, SessionStorage } from './platform.ts';
import { Store } from './store.ts';
import type { StoredTask } from './store.ts';
import { EventStream } from './stream.ts';
import { Feed, Task, TaskError } from './task.ts';
import type { FeedOwner, LogHost, TaskLog } from './task.ts';
import { maxOpenTasks, maxPositions, subprotocol } from './wire.ts';
import type { Accepted, ClientMessage, ClientRequest, Position, Priority, Refused, ServerMessage, ServerReply, SocketMeta, Submit, TaskEvent, WireError } from './wire.ts';

/**
 * Positions are acknowledged at once if the last acknowledgement went out ackMs ago or more; else when so many have
 * passed since, or when ackEvery events are not acknowledged, whichever is first; and when the page goes away.
 */
export const ackEvery = 32;
export const ackMs = 50;
/** Tasks that are over, as many as are remembered. */
export const maxOver = 200;
/** A socket that lived this long ends a row of retries. */
export const steadyMs = 5_000;
/** WebSocket is tried so often in a row before an event stream is. */
export const socketTries = 2;
/** On an event stream WebSocket is tried again after so long, then after twice as long, up to the bound. */
export const socketAgainMs = 60_000;
export const maxSocketAgainMs = 600_000;

export interface Options extends BackoffOptions {
  /** ws, wss, http or https, or relative to the page. Default '/v1/ws'. */
  url?: string;
  /** Who the user is, where the server asks: a token, or how to get a fresh one for each socket. */
  auth?: string | (() => string | Promise<string>);
  /**
   * How messages travel. 'auto' (default) is WebSocket, and an event stream (server-sent events, and POST) where two
   * sockets in a row did not come to life, as behind a proxy that lets none pass; it goes back to WebSocket
   * by itself when that can be opened, and no event is lost or doubled by it.
   */
  transport?: 'auto' | 'ws' | 'sse';
  /** Where the lines of logs come from. Left out: the live copy, in which some may be missing; wholeLogs: all. */
  logs?: (host: LogHost) => TaskLog;
  /** How load balancers find the worker again: by their cookie (default), or by ?route= in the socket's URL. */
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
  /** It is told again when the transport changes. */
  | { name: 'open'; meta: SocketMeta; transport: 'ws' | 'sse' }
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
  /** What is no business of the client itself: messages of channels, requests, types that it does not know. */
  message: ServerMessage;
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
  #next: Link | undefined; // a socket that is to follow the stream when it has its socket_meta
  #refused = 0; // sockets and streams in a row that did not come to life; socketTries on a stream that did
  #again: unknown; // timer of the next socket to try on a stream
  #replies = new Map<string, (m: ServerReply) => void>(); // to requests on this link, by their IDs
  #attempt = 0;
  #openedAt = 0;
  #retry: unknown;
  #retryAsked = false; // the server named the time of the retry
  #acks = new Map<string, Position>();
  #ackCount = 0;
  #ackedAt = 0; // when the last one went out
  #ackTimer: unknown;
  #page: AbortController | undefined; // ends the listening to the page

  constructor(options: Options = {}) {
    this.#o = options;
    this.#platform = { ...here(), ...options.platform };
    const storage = options.storage === undefined ? this.#platform.storage : options.storage;
    this.#store = new Store(storage ?? undefined, options.storageKey ?? 'wscluster', (e) => this.#emit('error', e));
    this.#claim = new Claim(this.#platform);
    if (this.#store.meta()?.sse) this.#refused = socketTries; // a reload need not find out again
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
    this.#enter({ name: 'closed', code: 1000, reason: 'closed' });
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
    const id = options.taskId ?? newID();
    const refuse = (code: string, message: string, retryable = false) => {
      throw new TaskError({ code, message, retryable });
    };
    if (!/^\w[\w.-]{0,63}$/.test(id)) refuse('bad_frame', 'no task ID: ' + id);
    if (!/^[a-z0-9-]{1,64}$/.test(kind)) refuse('bad_frame', 'no kind: ' + kind);
    if (this.#feeds.has(id)) refuse('conflict', 'open already: ' + id);
    if (this.#over.has(id)) refuse('over', 'submit under a new ID, over is ' + id);
    if (this.#feeds.size >= maxOpenTasks) refuse('too_many_tasks', maxOpenTasks + ' tasks are open', true);
    const kept = { kind, position: { task_id: id, attempt: 0, run_id: '', next: 0 }, params, priority: options.priority };
    if (!fits(submitMessage(kept))) refuse('frame_too_large', 'more than 64 KiB');
    const feed = this.#addFeed(kept);
    this.#persist(feed);
    this.#ask(feed);
    return feed.task;
  }

  /** Sends m if the client is connected; false means that it went nowhere. What it sends for itself is no business of yours. */
  send(m: ClientMessage): boolean {
    return this.#state.name === 'open' && !!this.#link?.send(m);
  }

  /** As send. reply gets the answer, also an error; it gets nothing if the connection ends first: see the next state. */
  request(m: ClientRequest, reply: (m: ServerReply) => void): boolean {
    this.#replies.set(m.id, reply);
    return this.send(m) || !this.#replies.delete(m.id);
  }

  /** Calls fn when what was refused with e, for the n-th time in a row, may be tried again. */
  later(fn: () => void, n: number, e: WireError): unknown {
    return this.#platform.setTimeout(fn, delay(n, 'retry', e.retry_after_ms ?? 0, this.#platform.random(), this.#o));
  }

  // ---- connecting

  #dial(): void {
    const life = ++this.#life;
    this.#enter({ name: 'connecting', attempt: this.#attempt });
    void this.#prepare().then(
      (auth) => life === this.#life && (this.#link = this.#open(auth, this.#streams)),
      (e) => {
        this.#emit('error', e);
        if (life === this.#life) this.#gone({ code: 1006, reason: 'auth failed' });
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
    return this.#auth();
  }

  async #auth(): Promise<string | undefined> {
    const { auth } = this.#o;
    return typeof auth === 'function' ? auth() : auth;
  }

  #restore(): void {
    const submitted = [...this.#feeds.values()];
    this.#feeds.clear();
    for (const t of this.#store.tasks()) {
      this.#emit('task', this.#addFeed(t).task);
    }
    for (const f of submitted) this.#feeds.set(f.id, f);
  }

  /** Whether the next connection is a stream. Where neither comes to life, they take turns. */
  get #streams(): boolean {
    const { transport } = this.#o;
    return transport === 'sse' || (transport !== 'ws' && this.#refused >= socketTries && this.#refused % 2 === 0);
  }

  #open(auth: string | undefined, sse: boolean): Link {
    const p = this.#platform;
    const link: Link = new Link(sse ? new EventStream(this.#url('http'), p, () => this.#store.meta()) : p.connect(this.#url('ws'), subprotocol), p, {
      opened: () => {
        const token = this.#store.meta()?.token;
        const tasks = [...this.#feeds.values()].filter((f) => !f.kept.params).map((f) => f.kept.position);
        link.send({ type: 'hello', ...(auth && { auth }), ...(token && { token }), ...(tasks.length && { tasks }) });
      },
      message: (m, chars) => this.#receive(m, chars, link, sse),
      gone: (e) => {
        if (link === this.#next) this.#next = undefined;
        else this.#gone(e);
      },
    });
    return link;
  }

  #url(scheme: string): string {
    const url = new URL(this.#o.url ?? '/v1/ws', this.#platform.base);
    url.protocol = url.protocol.replace(/http|ws/, scheme);
    const route = this.#store.meta()?.route;
    if (this.#o.affinity === 'route' && route) url.searchParams.set('route', route);
    return url.href;
  }

  /** After ms, and again later, tries to go from the stream to a socket; the stream lives until the socket does. */
  #trySocket(ms: number): unknown {
    return this.#platform.setTimeout(() => {
      this.#again = this.#trySocket(Math.min(2 * ms, maxSocketAgainMs));
      const life = this.#life;
      if (this.#state.name !== 'open' || this.#next) return;
      this.#auth().then(
        (auth) => life === this.#life && (this.#next = this.#open(auth, false)),
        (e) => this.#emit('error', e),
      );
    }, ms);
  }

  /** Tries no more sockets. */
  #stay(): void {
    this.#platform.clearTimeout(this.#again);
    this.#again = undefined;
  }

  #gone({ code, reason, retry_after_ms = 0 }: Ending): void {
    const steady = this.#state.name === 'open' && this.#platform.now() - this.#openedAt >= steadyMs;
    if (!this.#link?.welcomed) this.#refused++;
    this.#drop();
    if (steady) this.#attempt = 0;
    const v = verdict(code);
    if (v === 'stop' || this.#attempt >= (this.#o.maxRetries ?? Infinity)) {
      this.#enter({ name: 'closed', code, reason });
      return;
    }
    const delayMs = delay(++this.#attempt, v, retry_after_ms, this.#platform.random(), this.#o);
    this.#retryAsked = retry_after_ms > 0;
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
    this.#stay();
    this.#claim.release();
  }

  #drop(): void {
    this.#life++;
    this.#next?.close();
    this.#link = this.#next = undefined;
    this.#replies.clear();
    this.#platform.clearTimeout(this.#retry);
  }

  // ---- receiving

  #receive(m: ServerMessage, chars: number, link: Link, sse: boolean): void {
    if (m.type === 'socket_meta') return this.#welcome(m, link, sse);
    if (link !== this.#link) return;
    if (m.type === 'event') return this.#event(m, chars);
    const { id } = m as { id?: string };
    const reply = this.#replies.get(id!);
    if (reply) {
      this.#replies.delete(id!);
      reply(m as ServerReply);
    } else if (m.type === 'error') this.#emit('error', new TaskError(m));
    else this.#emit('message', m);
  }

  #welcome(m: SocketMeta, link: Link, sse: boolean): void {
    const next = link === this.#next;
    const fresh = next || this.#state.name === 'connecting';
    if (fresh && this.#store.meta() && !m.resumed && !m.reason) {
      // The hello with our token came too late: this session is a stranger's. Ask again.
      link.close();
      if (next) this.#next = undefined;
      else this.#gone({ code: 1006, reason: 'hello came late' });
      return;
    }
    this.#meta = m;
    this.#store.putMeta({ client_id: m.client_id, token: m.token, route: m.route, sse });
    void this.#claim.take(m.client_id);
    this.#emit('meta', m);
    if (!fresh) return;
    if (next) this.#link?.close();
    this.#link = link;
    this.#next = undefined;
    this.#replies.clear();
    this.#refused = sse ? socketTries : 0;
    if (!sse) this.#stay();
    else if (this.#o.transport !== 'sse') this.#again ??= this.#trySocket(socketAgainMs);
    // The token is stored: only now may the worker depend on it. It takes nothing else before this.
    if (m.resumed) link.send({ type: 'confirm', epoch: m.epoch });
    for (const { task_id, state } of m.tasks ?? []) {
      const feed = this.#feeds.get(task_id);
      if (!feed || state === 'running') continue;
      this.#end(feed);
      feed.fail({ code: 'lost', message: 'the server calls it ' + state, retryable: true });
    }
    this.#openedAt = this.#platform.now();
    this.#enter({ name: 'open', meta: m, transport: sse ? 'sse' : 'ws' });
    for (const f of this.#feeds.values()) {
      this.#ask(f);
      this.#cancel(f);
      f.log?.ask(true);
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
    if (!feed?.kept.params) return;
    feed.accept(a);
    this.#persist(feed);
  }

  // ---- tasks and acknowledgements

  /** Submits a task, if the server does not have it, and it is open and due. */
  #ask(f: Feed): void {
    if (!f.kept.params || f.over || f.retry) return;
    this.request(submitMessage(f.kept), (m) => {
      if (m.type === 'error') this.#refuse(f, m);
      else this.#accept(f, { queuePosition: (m as Accepted).queue_position });
    });
  }

  #refuse(f: Feed, m: Refused): void {
    if (!f.kept.params) return this.#emit('error', new TaskError(m));
    // Too many tasks are refused before the broker is asked: no doubt, unless there was one before.
    if (m.retryable && (f.doubts || m.code !== 'too_many_tasks')) return this.#postpone(f, m);
    this.#end(f);
    f.fail(m);
  }

  /** Says that the application wants the task to end, behind its submit. */
  #cancel(f: Feed): void {
    if (!f.canceling || f.over) return;
    this.request({ type: 'cancel', id: 'cancel:' + f.id, task_id: f.id, kind: f.kept.kind }, (m) => {
      const refused = m.type === 'error';
      f.canceling = refused && m.retryable;
      if (refused) this.#emit('error', new TaskError(m));
      if (f.canceling) this.later(() => this.#cancel(f), 1, m as Refused);
    });
  }

  /** The broker may have the task or not: forgotten, its events would be acknowledged unseen. */
  #postpone(f: Feed, e: WireError): void {
    this.#platform.clearTimeout(f.retry);
    f.retry = this.later(() => {
      f.retry = undefined;
      this.#ask(f);
    }, ++f.doubts, e);
    this.#emit('error', new TaskError(e));
  }

  #addFeed(kept: StoredTask): Feed {
    const owner: FeedOwner = {
      moved: (f) => {
        if (f.order.finished) this.#end(f);
        else this.#persist(f);
        this.#ack(f.kept.position);
      },
      fault: (e) => this.#emit('error', e),
      cancel: (f) => this.#cancel(f),
      request: (f, m, reply) => !f.kept.params && this.request(m, reply),
      later: (fn, ms) => this.#platform.setTimeout(fn, ms),
    };
    const feed = new Feed(kept, owner, this.#o.logs);
    this.#feeds.set(feed.id, feed);
    return feed;
  }

  #persist(f: Feed): void {
    if (this.#restored) this.#store.putTask(f.kept);
  }

  #end(f: Feed): void {
    this.#feeds.delete(f.id);
    this.#store.dropTask(f.id);
    if (!f.kept.params) this.#remember(f.id); // a refused one may be submitted again
  }

  /** Nothing more will come of this task: a submit under its ID would wait for ever. */
  #remember(id: string): void {
    this.#over.add(id);
    if (this.#over.size > maxOver) this.#over.delete(this.#over.values().next().value!);
  }

  #ack(p: Position): void {
    const known = this.#acks.get(p.task_id);
    this.#acks.set(p.task_id, known ? further(known, p) : p);
    this.#ackCount++;
    // No timer, which a hidden page gets once a second; and one message for all that comes in this turn.
    queueMicrotask(() => this.#acknowledge());
  }

  /** Says what the application has if it is time, or else later. */
  #acknowledge(): void {
    const ago = this.#platform.now() - this.#ackedAt; // below 0 if the clock was set back
    if (this.#ackCount >= ackEvery || ago < 0 || ago >= ackMs) this.#flush();
    else if (this.#acks.size) this.#ackTimer ??= this.#platform.setTimeout(() => this.#flush(), ackMs - ago);
  }

  #flush(): void {
    this.#platform.clearTimeout(this.#ackTimer);
    this.#ackTimer = undefined;
    this.#ackCount = 0;
    if (this.#state.name !== 'open' || !this.#acks.size) return;
    if (this.#link?.busy) {
      this.#ackTimer = this.#platform.setTimeout(() => this.#flush(), ackMs);
      return;
    }
    this.#ackedAt = this.#platform.now();
    const all = [...this.#acks.values()];
    this.#acks.clear();
    for (let i = 0; i < all.length; i += maxPositions) {
      this.send({ type: 'ack', tasks: all.slice(i, i + maxPositions) });
    }
  }

  // ---- the page

  #listen(): void {
    const { window, document } = this.#platform;
    const { signal } = (this.#page = new AbortController());
    const on = (target: EventTarget | undefined, name: string, fn: (persisted: boolean) => void) =>
      target?.addEventListener(name, (e) => fn((e as PageTransitionEvent).persisted), { signal });
    on(window, 'pagehide', (persisted) => this.#pageHide(persisted));
    on(window, 'pageshow', (persisted) => persisted && this.#state.name === 'waiting' && this.#dial());
    on(window, 'online', () => this.#hurry());
    on(document, 'visibilitychange', () => document!.visibilityState === 'visible' && this.#hurry());
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

function submitMessage({ kind, position: { task_id }, params = {}, priority }: StoredTask): Submit & { id: string } {
  return { type: 'submit', id: task_id, task_id, kind, params, ...(priority && { priority }) };
}
