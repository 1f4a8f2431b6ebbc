import { Order } from './order.ts';
import type { Step } from './order.ts';
import type { StoredTask } from './store.ts';
import type { ClientRequest, Position, ServerReply, TaskEvent, WireError } from './wire.ts';

/**
 * Why a task was refused, failed or was lost. code is one of the server's closed list, or 'lost': the
 * server no longer knows the task, and nothing more of it will come; or 'missed': the task is over, but
 * its end is among the events that were given up (see the gap event); or 'over': nothing more would come
 * of a task of that ID, submit under a new one.
 */
export class TaskError extends Error {
  readonly code: string;
  readonly retryable: boolean;
  readonly retryAfterMs: number;

  constructor(e: WireError) {
    super(e.message);
    this.name = 'TaskError';
    this.code = e.code;
    this.retryable = e.retryable;
    this.retryAfterMs = e.retry_after_ms ?? 0;
  }
}

export type StepName = Step['event'];
export type StepHandler<N extends StepName> = (step: Extract<Step, { event: N }>) => unknown;

/** The reply to a submit; the queue position is rough, and absent if the server does not know it. */
export interface Acceptance {
  queuePosition?: number | undefined;
}

/**
 * Task is the application's handle on one submitted task.
 *
 * An event counts as had when every handler that takes it has returned (or its promise has settled), and
 * every loop over events that got it has asked for the next one. Only then is the position stored and acknowledged,
 * and the next event is handed out; after a reload events go on behind that position. So whatever a page
 * wants to show again after a reload it must store before its handler returns. Events that nobody takes
 * count as had at once.
 *
 * Log events are a live copy, in which lines may be left out; every line comes to clients with the option logs.
 *
 * A handler that throws is reported to the client's error listeners, and the event counts as had.
 */
export class Task {
  readonly id: string;
  readonly kind: string;
  /** Settles when the server has stored the task, or refused it for certain. Its events may come first. */
  readonly accepted: Promise<Acceptance>;
  /** The value of the result event, or a TaskError; settles after the final event's handlers. */
  readonly result: Promise<unknown>;
  #feed: Feed;

  constructor(feed: Feed) {
    this.#feed = feed;
    this.id = feed.id;
    this.kind = feed.kept.kind;
    this.accepted = feed.accepted.promise;
    this.result = feed.result.promise;
  }

  /** Where the application stands, as stored. */
  get position(): Position {
    return this.#feed.order.position;
  }

  /**
   * Asks for the end of the task, whether it waits or runs; again on every new socket, until the server
   * has stored that. The final event tells how it ended: an error with code canceled, or what came first.
   * Harmless for a task that is over, and if asked twice. Lost if the page goes before the server has it.
   */
  cancel(): void {
    this.#feed.cancel();
  }

  /** Calls fn for each event of that name ('*': all, and 'reset'), until the returned function is called. */
  on<N extends StepName>(name: N, fn: StepHandler<N>): () => void;
  on(name: '*', fn: (step: Step) => unknown): () => void;
  on(name: string, fn: (step: never) => unknown): () => void {
    return this.#feed.on(name, fn as (step: Step) => unknown);
  }
}

/** What a Feed tells the client. */
export interface FeedOwner {
  /** The application's position in the task moved: store it, then acknowledge it. */
  moved(feed: Feed): void;
  /** A handler threw. */
  fault(e: unknown): void;
  /** The application wants the task to end. */
  cancel(feed: Feed): void;
  /** As Client.request, once the server has the task. */
  request(feed: Feed, m: ClientRequest, reply: (m: ServerReply) => void): boolean;
  later(fn: () => void, ms: number): void;
}

/** What a TaskLog needs of its task. */
export interface LogHost {
  readonly id: string;
  /** Somebody takes log events. */
  readonly listening: boolean;
  /** Sends m; false if that cannot be now: ask is called when it can. */
  request(m: ClientRequest, reply: (m: ServerReply) => void): boolean;
  /** Calls fn after ms unless the task is over. */
  later(fn: () => void, ms: number): void;
  /** Steps may be ready. */
  pump(): void;
}

/** Where the lines of a task's log come from, other than from durable events. */
export interface TaskLog {
  /** Learns from an event of the highest run. */
  see(e: TaskEvent): void;
  /** What the application gets before the final event, which may not be here yet: itself if nothing, undefined if lines are to come. */
  before(last: TaskEvent | undefined): TaskEvent | undefined;
  /** The application has had the step; false if it did not come from here. */
  settle(step: unknown): boolean;
  /** Asks for lines that are missing. again: what was asked before is lost. */
  ask(again?: boolean): void;
}

/** Feed hands the events of one task to its handlers, one after the other. */
export class Feed implements LogHost {
  readonly order: Order;
  readonly log: TaskLog | undefined;
  readonly task: Task;
  readonly accepted = deferred<Acceptance>();
  readonly result = deferred<unknown>();
  /** What to submit, and how it is stored; without params once the server has it. */
  readonly kept: StoredTask;
  /** Refusals that left in doubt whether the server has it, and the timer to ask again after the last. */
  doubts = 0;
  retry: unknown;
  /** The application wants the task to end, and the server does not know that for certain. */
  canceling = false;
  /** The task has ended, one way or the other. */
  over = false;

  #owner: FeedOwner;
  #handlers: { name: string; fn: (step: Step) => unknown }[] = [];
  #busy = false;

  constructor(kept: StoredTask, owner: FeedOwner, logs: ((host: LogHost) => TaskLog) | undefined) {
    this.kept = kept;
    this.order = new Order(kept.position, !!logs);
    this.log = logs?.(this);
    this.#owner = owner;
    this.task = new Task(this);
    if (!kept.params) this.accepted.resolve({});
  }

  on(name: string, fn: (step: Step) => unknown): () => void {
    const h = { name, fn };
    this.#handlers.push(h);
    this.log?.ask();
    return () => void (this.#handlers = this.#handlers.filter((x) => x !== h));
  }

  cancel(): void {
    if (this.over) return;
    this.canceling = true;
    this.#owner.cancel(this);
  }

  /** The server has the task. */
  accept(a: Acceptance): void {
    this.kept.params = this.kept.priority = undefined;
    this.accepted.resolve(a);
  }

  /** The task ended without a final event. */
  fail(e: WireError): void {
    this.accepted.reject(new TaskError(e));
    this.result.reject(new TaskError(e));
    this.over = true;
  }

  /** Takes an event; false means that its position is to be acknowledged again. */
  take(e: TaskEvent, chars: number): boolean {
    const taken = this.order.take(e, chars);
    if (taken) this.log?.see(e);
    this.pump();
    return taken;
  }

  get id(): string {
    return this.kept.position.task_id;
  }

  get listening(): boolean {
    return this.#handlers.some((h) => h.name === '*' || h.name === 'log');
  }

  request(m: ClientRequest, reply: (m: ServerReply) => void): boolean {
    return !this.over && this.#owner.request(this, m, reply);
  }

  later(fn: () => void, ms: number): void {
    this.#owner.later(() => this.over || fn(), ms);
  }

  #peek(): Step | undefined {
    const step = this.order.peek();
    return this.log && (!step || step.last) ? this.log.before(step) : step;
  }

  /** Hands out what is ready, and asks for what is missing. */
  pump(): void {
    for (let step; !this.#busy && !this.over && (step = this.#peek()); ) {
      const pending = this.#call(step);
      if (!pending.length) {
        this.#settle(step);
        continue;
      }
      const handed = step;
      this.#busy = true;
      void Promise.allSettled(pending).then((all) => {
        for (const r of all) if (r.status === 'rejected') this.#owner.fault(r.reason);
        this.#busy = false;
        if (!this.over) this.#settle(handed);
        this.pump();
      });
    }
    this.log?.ask();
  }

  #call(step: Step): Promise<unknown>[] {
    const pending: Promise<unknown>[] = [];
    for (const { name, fn } of this.#handlers) {
      if (name !== '*' && name !== step.event) continue;
      try {
        const r = fn(step);
        if (r instanceof Promise) pending.push(r);
      } catch (e) {
        this.#owner.fault(e);
      }
    }
    return pending;
  }

  #settle(step: Step): void {
    if (this.log?.settle(step)) return;
    if (this.order.settle(step)) {
      this.kept.position = this.order.position;
      this.#owner.moved(this);
    }
    if (!this.order.finished) return;
    if (step.event === 'result') this.result.resolve(step.body.value);
    else this.result.reject(new TaskError(step.event === 'error' ? step.body : { code: 'missed', message: `its end was not kept (${step.event === 'gap' && step.body.reason})`, retryable: true }));
    this.over = true;
  }
}

interface Deferred<T> {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (e: unknown) => void;
}

function deferred<T>(): Deferred<T> {
  const d = {} as Deferred<T>;
  d.promise = new Promise<T>((resolve, reject) => Object.assign(d, { resolve, reject }));
  d.promise.catch(() => {}); // nobody is obliged to look
  return d;
}
