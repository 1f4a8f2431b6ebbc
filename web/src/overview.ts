import { subscribe } from '../../client/src/index.ts';
import type { Client, Engine, Missed, Workflow } from '../../client/src/index.ts';

export type Status = Workflow['status'];
export const statuses: readonly Status[] = ['running', 'queued', 'succeeded', 'failed', 'canceled'];

/** Workflows that are remembered; the oldest that have ended go first. */
export const maxWorkflows = 1000;
/** Updates of one workflow that are shown. */
export const maxUpdates = 100;
/** What was missed is made good by a new snapshot after so long. */
export const healMs = 2000;

/** One workflow as it was last told, and since when it has its status (milliseconds). */
export interface Row extends Workflow {
  since: number;
}

/**
 * Whether an update replaces what is known. Publishers differ (a worker says queued, a runner the rest), so that the
 * order of arrival says nothing: the later one counts, but queued never comes after anything else.
 */
export function replaces(known: Workflow | undefined, w: Workflow): boolean {
  if (!known) return true;
  if (w.status === 'queued') return known.status === 'queued' && known.timestamp <= w.timestamp;
  return known.status === 'queued' || known.timestamp <= w.timestamp;
}

const ended = (w: Workflow) => w.status !== 'running' && w.status !== 'queued';

/** How a subscription stands. */
export type Watch = 'asked' | 'live' | { refused: string };

/**
 * Workflows keeps the rows of the overview. It is pure. A row moves only when its status changes.
 */
export class Workflows {
  #rows = new Map<string, Row>();

  take(w: Workflow): void {
    const known = this.#rows.get(w.workflow_id);
    if (!replaces(known, w)) return;
    const since = known?.status === w.status ? known.since : Date.parse(w.timestamp);
    this.#rows.set(w.workflow_id, { ...w, since });
    if (this.#rows.size > maxWorkflows) this.#rows.delete(this.list('').at(-1)!.workflow_id);
  }

  /** A snapshot follows: those that have not ended are in it, or have ended unseen. */
  begin(): void {
    for (const [id, w] of this.#rows) if (!ended(w)) this.#rows.delete(id);
  }

  /** How many there are of a status, or of all. */
  count(status: Status | ''): number {
    let n = 0;
    for (const w of this.#rows.values()) if (!status || w.status === status) n++;
    return n;
  }

  /** Those of a status, or all: what runs first, then what waits, then what has ended; the latest first. */
  list(status: Status | ''): Row[] {
    const rank = (w: Row) => Math.min(2, statuses.indexOf(w.status));
    return [...this.#rows.values()]
      .filter((w) => !status || w.status === status)
      .sort((a, b) => rank(a) - rank(b) || b.since - a.since || (a.workflow_id < b.workflow_id ? -1 : 1));
  }
}

/** Overview follows the channels workflows and engine while somebody looks. changed is called after each change. */
export class Overview {
  readonly workflows = new Workflows();
  engine: Engine | undefined;
  watch: Watch = 'asked';
  /** Updates that did not come; -1 if nobody knows how many. Forgotten when a snapshot has made them good. */
  missed = 0;
  /** A publisher did not say in time what it keeps. */
  partial = false;

  #client: Client;
  #changed: () => void;

  constructor(client: Client, changed: () => void) {
    this.#client = client;
    this.#changed = changed;
  }

  /** Follows both until the returned function is called. */
  look(): () => void {
    const client = this.#client;
    let heal: ReturnType<typeof setTimeout> | undefined;
    const workflows = () =>
      subscribe(client, 'workflows', {
        onSubscribed: (m) => {
          this.workflows.begin();
          this.watch = 'live';
          this.partial = !!m.partial;
          this.missed = 0;
          this.#changed();
        },
        onMessage: (m) => {
          if (m.name === 'workflow') this.workflows.take(m.body as Workflow);
          this.#changed();
        },
        onMissed: (m: Missed) => {
          this.missed = m.count && this.missed >= 0 ? this.missed + m.count : -1;
          heal ??= setTimeout(() => {
            heal = undefined;
            off();
            off = workflows();
          }, healMs);
          this.#changed();
        },
        onError: (e) => {
          this.watch = { refused: e.message };
          this.#changed();
        },
      });
    let off = workflows();
    const offEngine = subscribe(client, 'engine', {
      onMessage: (m) => {
        this.engine = m.body as Engine;
        this.#changed();
      },
    });
    return () => {
      clearTimeout(heal);
      off();
      offEngine();
    };
  }
}

/** WorkflowWatch follows one workflow by its ID. */
export class WorkflowWatch {
  readonly id: string;
  now: Workflow | undefined;
  /** The latest first, at most maxUpdates. */
  updates: Workflow[] = [];
  watch: Watch = 'asked';

  #client: Client;
  #changed: () => void;

  constructor(client: Client, id: string, changed: () => void) {
    this.#client = client;
    this.id = id;
    this.#changed = changed;
  }

  look(): () => void {
    return subscribe(this.#client, 'workflow.' + this.id, {
      onSubscribed: () => {
        this.watch = 'live';
        this.#changed();
      },
      onMessage: (m) => {
        const w = m.body as Workflow;
        if (m.name !== 'workflow' || !replaces(this.now, w)) return;
        if (!m.snapshot || this.now?.timestamp !== w.timestamp) this.updates = [w, ...this.updates].slice(0, maxUpdates);
        this.now = w;
        this.#changed();
      },
      onError: (e) => {
        this.watch = { refused: e.message };
        this.#changed();
      },
    });
  }
}
