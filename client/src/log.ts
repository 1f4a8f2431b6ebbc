import type { LogHost, TaskLog } from './task.ts';
import type { LogLines, Refused, TaskEvent } from './wire.ts';

type LogEvent = Extract<TaskEvent, { event: 'log' }>;

/** Characters of lines that wait for the application before no more are asked for. */
export const maxLogChars = 1 << 20;
/** A piece that cannot be had is asked for so often again, after 1, 2 and 4 s; then its lines are given up. */
export const maxLogTries = 3;

/**
 * The option `logs` of a client whose pages show logs: every line of a task's log is given from the first on, after a
 * reload too, and before the final event. What the live copy leaves out is read from the runner, if anybody
 * takes log events. Lines that cannot be had any more are one log event with missing_lines.
 */
export function wholeLogs(host: LogHost): TaskLog {
  return new Follower(host);
}

/** Follower asks for what its LogReader lacks, and again if it cannot be had. */
class Follower implements TaskLog {
  #host: LogHost;
  #reader: LogReader;

  constructor(host: LogHost) {
    this.#host = host;
    this.#reader = new LogReader(host.id);
  }

  see(e: TaskEvent): void {
    this.#reader.see(e, this.#host.listening);
  }

  before(last: TaskEvent | undefined): TaskEvent | undefined {
    return this.#reader.peek() ?? (this.#reader.behind && this.#host.listening ? undefined : last);
  }

  settle(step: unknown): boolean {
    return this.#reader.settle(step);
  }

  ask(again?: boolean): void {
    const r = this.#reader;
    if (again) r.asked = false;
    if (r.wants && this.#host.listening) {
      const { id } = this.#host;
      r.asked = true; // the answer may come before request returns
      if (!this.#host.request({ type: 'log_read', id: 'log:' + id, task_id: id, ...r.request }, (m) => this.#take(m as LogLines | Refused))) r.asked = false;
    }
  }

  /** A piece of the log, or why there is none: then it is asked for again, or given up. */
  #take(m: LogLines | Refused): void {
    const r = this.#reader;
    if (!r.asked) return;
    if (m.type === 'error' || !r.take(m)) {
      r.forgetRunner();
      if (r.tries++ < maxLogTries) return this.#host.later(() => this.ask(true), 500 << r.tries);
      r.asked = false;
      r.giveUp();
    }
    this.#host.pump();
  }
}

/**
 * LogReader brings every line of one run's log to the application once and in order. Live copies that go
 * on where the last line was are taken at once; what they leave out is to be read from the runner, a piece
 * at a time. It is pure: no socket, no clock. The owner asks while `wants` says so.
 */
export class LogReader {
  /** A piece was asked for and has not come. */
  asked = false;
  /** Times that the next piece could not be had. */
  tries = 0;
  #run: Pick<LogEvent, 'task_id' | 'attempt' | 'run_id'>;
  #runner = '';
  #next = 1; // the first line that is not ready
  #seen = 0; // the last line known to be there
  #ready: LogEvent[] = [];
  #chars = 0;

  constructor(task_id: string) {
    this.#run = { task_id, attempt: 0, run_id: '' };
  }

  /** Lines are missing: the final event has to wait. */
  get behind(): boolean {
    return this.#seen >= this.#next;
  }

  get wants(): boolean {
    return this.behind && !this.asked && this.#chars < maxLogChars;
  }

  /** What to ask for. */
  get request(): { runner?: string; run_id?: string; from_line: number } {
    const { run_id } = this.#run;
    return { ...(this.#runner && { runner: this.#runner }), ...(run_id && { run_id }), from_line: this.#next };
  }

  /** Learns from an event of the highest run. listening: somebody wants lines. */
  see(e: TaskEvent, listening: boolean): void {
    const { task_id, attempt, run_id } = e;
    if (run_id !== this.#run.run_id || attempt !== this.#run.attempt) {
      this.#run = { task_id, attempt, run_id };
      this.#runner = '';
      this.#next = 1;
      this.#seen = this.#chars = this.tries = 0;
      this.asked = false;
      this.#ready = [];
    }
    if (e.event === 'started') this.#runner = e.body.runner;
    else if (e.event === 'result' || e.event === 'error') this.#seen = e.body.last_line || 0;
    else if (e.event === 'log') {
      const { first_line: first, lines } = e.body;
      if (!(first > 0) || !Array.isArray(lines)) return;
      const end = first + lines.length;
      this.#seen = Math.max(this.#seen, end - 1);
      if (e.durable) this.#next = Math.max(this.#next, end); // the application gets it as any other event
      else if (listening && !this.asked && !this.tries && first <= this.#next && end > this.#next) this.#add(lines.slice(this.#next - first));
    }
  }

  /** Takes the answer; false if it is none to what was asked, or has no lines. */
  take(m: LogLines): boolean {
    if (!this.asked || m.run_id !== this.#run.run_id || m.first_line !== this.#next || !m.lines.length) return false;
    this.asked = false;
    this.tries = 0;
    this.#runner = m.runner;
    this.#add(m.lines);
    return true;
  }

  /** Gives up the lines that are missing. */
  giveUp(): void {
    const missing = this.#seen - this.#next + 1;
    this.tries = 0;
    this.#add([], missing);
  }

  peek(): LogEvent | undefined {
    return this.#ready[0];
  }

  /** The application has had the step; false if it is none of these. */
  settle(step: unknown): boolean {
    if (!this.#ready.length || this.#ready[0] !== step) return false;
    this.#chars -= chars(this.#ready.shift()!.body.lines);
    return true;
  }

  /** Who was asked does not answer: others may have it. */
  forgetRunner(): void {
    this.#runner = '';
  }

  #add(lines: string[], missing = 0): void {
    const body = { first_line: this.#next, lines, ...(missing && { missing_lines: missing }) };
    this.#ready.push({ type: 'event', ...this.#run, seq: 0, prev: 0, event: 'log', durable: false, last: false, body });
    this.#chars += chars(lines);
    this.#next += lines.length + missing;
    this.#seen = Math.max(this.#seen, this.#next - 1);
  }
}

function chars(lines: string[]): number {
  return lines.reduce((n, l) => n + l.length, 0);
}
