import type { Position, TaskEvent } from './wire.ts';

/** A task begins anew: what its earlier run told is void. It comes before the first event of the new run. */
export interface Reset {
  event: 'reset';
  attempt: number;
  run_id: string;
  seq: 0;
  durable: true;
  last: false;
}
export type Step = TaskEvent | Reset;

/** Events and characters that wait in one Order, for their turn or for the application. */
export const maxWaiting = 1024;
export const maxWaitingChars = 4 << 20;

interface Waiting {
  step: Step;
  chars: number;
}

/**
 * Order brings the events of one task to the application once each and in order, whatever comes
 * doubled, late or early. It is pure: no socket, no clock.
 *
 * The owner calls take for each event that arrives, peek for the next step that the application may
 * have, and settle when the application is done with it. Only then does the position move: what waits
 * here is never acknowledged.
 *
 * The rules are those of pkg/wire/event.go: a higher (attempt, run_id) resets the view, a lower one is
 * a duplicate; a durable event is next when prev < next; a transient one never waits for others and is
 * dropped when it is older than what the application has, and the latest wins; the final event is taken once. A gap
 * stands in its place of the order for events that will not come; the application is told of those it does not have. At most
 * maxWaiting steps and maxWaitingChars wait: an event beyond that is dropped without a trace, so that
 * the server sends it again after the next resume.
 */
export class Order {
  /** Where the application stands; replaced, never changed. */
  position: Position;
  /** The application has had the final event. */
  finished = false;

  #logsApart: boolean;
  #attempt: number; // the view: the highest run seen, and what is next in it
  #run: string;
  #next: number;
  #ended = false; // the final event is ready or settled
  #transient = 0; // the highest seq of a transient event that was taken
  #ready: Waiting[] = []; // in order, for the application
  #held: Waiting[] = []; // durable events too early for their turn, by seq
  #chars = 0;

  /** logsApart: live copies of a log are taken care of elsewhere. */
  constructor(position: Position, logsApart = false) {
    this.position = position;
    this.#logsApart = logsApart;
    this.#attempt = position.attempt;
    this.#run = position.run_id;
    this.#next = Math.max(1, position.next);
  }

  /**
   * All that may be acknowledged: the position, or the beginning of the highest run seen, where the
   * application has nothing of it yet but wants no more of an earlier one.
   */
  get wanted(): Position {
    const fresh = { ...this.position, attempt: this.#attempt, run_id: this.#run, next: 1 };
    return further(fresh, this.position);
  }

  /** Steps that wait, ready or held. */
  get waiting(): number {
    return this.#ready.length + this.#held.length;
  }

  /**
   * Takes one event, whose frame had the given number of characters. False means that the application
   * has it already or never will: acknowledge what is wanted.
   */
  take(e: TaskEvent, chars: number): boolean {
    if (this.#ended) return false;
    const order = compareRuns(e.attempt, e.run_id, this.#attempt, this.#run);
    if (order < 0) return false;
    if (order > 0) this.#reset(e);
    if (this.#logsApart && e.event === 'log' && !e.durable) return true;
    if (e.seq < this.#next) return false;
    if (!e.durable) {
      if (e.seq > this.#transient) this.#takeTransient(e, chars);
      return true;
    }
    while (this.#full(chars)) {
      // The latest held event gives way to one that is next in order: only that brings things forward.
      if (e.prev >= this.#next || !this.#held.length) return true;
      this.#chars -= this.#held.pop()!.chars;
    }
    this.#hold(e, chars);
    this.#advance();
    return true;
  }

  /** The next step for the application, the same until it is settled. */
  peek(): Step | undefined {
    return this.#ready[0]?.step;
  }

  /**
   * Says that the application has had the step that peek returned. True means that the position moved.
   * A step that a reset or a later progress has voided meanwhile changes nothing.
   */
  settle(step: Step): boolean {
    if (this.#ready[0]?.step !== step) return false;
    this.#chars -= this.#ready.shift()!.chars;
    const { attempt, run_id, durable } = step;
    if (!durable) return false;
    this.position = { task_id: this.position.task_id, attempt, run_id, next: step.seq + 1 };
    this.finished = step.last;
    return true;
  }

  #reset(e: TaskEvent): void {
    const first = !this.#attempt && !this.#run && this.#next === 1;
    this.#ready = [];
    this.#held = [];
    this.#chars = 0;
    this.#transient = 0;
    const { attempt, run_id } = e;
    this.#attempt = attempt;
    this.#run = run_id;
    this.#next = 1;
    if (!first) this.#ready.push({ step: { event: 'reset', attempt, run_id, seq: 0, durable: true, last: false }, chars: 0 });
  }

  #takeTransient(e: TaskEvent, chars: number): void {
    this.#transient = e.seq;
    if (this.#ready.at(-1)?.step.event === e.event) {
      this.#chars -= this.#ready.pop()!.chars;
    } else if (this.#full(chars)) {
      return;
    }
    this.#chars += chars;
    this.#ready.push({ step: e, chars });
  }

  #full(chars: number): boolean {
    return this.waiting >= maxWaiting || this.#chars + chars > maxWaitingChars;
  }

  #hold(e: TaskEvent, chars: number): void {
    let i = this.#held.length;
    let order = 1;
    while (i > 0 && (order = compareHeld(eventOf(this.#held[i - 1]!), e)) > 0) i--;
    if (!order) return;
    this.#held.splice(i, 0, { step: e, chars });
    this.#chars += chars;
  }

  #advance(): void {
    for (let i; (i = this.#held.findIndex((w) => eventOf(w).prev < this.#next)) >= 0; ) {
      this.#drop(i); // they wait for events that a gap stands in for
      const w = this.#held[0]!;
      const e = eventOf(w);
      if (e.seq < this.#next) {
        this.#drop(1);
        continue;
      }
      this.#held.shift();
      if (e.event === 'gap') w.step = { ...e, body: { ...e.body, from_seq: Math.max(e.body.from_seq, this.#next) } };
      this.#ready.push(w);
      this.#next = e.seq + 1;
      if (e.last) {
        this.#ended = true;
        this.#drop(this.#held.length);
      }
    }
  }

  /** Forgets the first n that are held. */
  #drop(n: number): void {
    for (const w of this.#held.splice(0, n)) this.#chars -= w.chars;
  }
}

/** Returns the further of two positions in one task. */
export function further(a: Position, b: Position): Position {
  return (compareRuns(a.attempt, a.run_id, b.attempt, b.run_id) || a.next - b.next) < 0 ? b : a;
}

function compareRuns(attempt: number, run: string, otherAttempt: number, otherRun: string): number {
  return attempt - otherAttempt || (run < otherRun ? -1 : run > otherRun ? 1 : 0);
}

function eventOf(w: Waiting): TaskEvent {
  return w.step as TaskEvent;
}

/**
 * Orders what is held by seq, and a gap behind the event whose seq it has: if the events that it stands in for are
 * all there, the application gets them. Of gaps that end together the one that covers less is first.
 */
function compareHeld(a: TaskEvent, b: TaskEvent): number {
  return a.seq - b.seq || +(a.event === 'gap') - +(b.event === 'gap') || b.prev - a.prev;
}
