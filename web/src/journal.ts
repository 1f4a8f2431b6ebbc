import type { TaskEvent } from '../../client/src/index.ts';

/** Characters of log that one task may keep; after that its log events are not kept any more. */
export const maxKept = 32 << 20;

/**
 * Journal keeps the durable events that this page has shown, so that a reload can show them again: the
 * server forgets an event once the page has it. It lies in IndexedDB by (task, attempt, run, seq), so that
 * an event which comes twice is kept once. Where IndexedDB is missing or full, keep says false; the page
 * goes on, and says that a reload will show less.
 */
export class Journal {
  #db: Promise<IDBDatabase>;
  #kept = new Map<string, number>(); // characters of log by task

  constructor(idb: IDBFactory | undefined) {
    this.#db = new Promise((resolve, reject) => {
      if (!idb) return reject(new Error('no IndexedDB'));
      const open = idb.open('wscluster-console', 1);
      open.onupgradeneeded = () => open.result.createObjectStore('events');
      open.onsuccess = () => resolve(open.result);
      open.onerror = () => reject(open.error ?? new Error('IndexedDB'));
    });
    this.#db.catch(() => {}); // each use meets it again
  }

  /** Resolves when e is stored (true), or will not be (false: no room). */
  async keep(e: TaskEvent): Promise<boolean> {
    if (!e.durable) return true;
    if (e.event === 'log') {
      const kept = (this.#kept.get(e.task_id) ?? 0) + size(e.body.lines);
      if (kept > maxKept) return false;
      this.#kept.set(e.task_id, kept);
    }
    return this.#write((s) => s.put(e, [e.task_id, e.attempt, e.run_id, e.seq]));
  }

  /** The events of a task in the order of their runs and numbers. */
  async read(task: string): Promise<TaskEvent[]> {
    try {
      const get = (await this.#store('readonly')).getAll(all(task));
      const events = await new Promise<TaskEvent[]>((resolve, reject) => {
        get.onsuccess = () => resolve(get.result as TaskEvent[]);
        get.onerror = () => reject(get.error ?? new Error('IndexedDB'));
      });
      this.#kept.set(task, events.reduce((n, e) => n + (e.event === 'log' ? size(e.body.lines) : 0), 0));
      return events;
    } catch {
      return [];
    }
  }

  /** Forgets a task: it began anew, or left the list. */
  async forget(task: string): Promise<void> {
    this.#kept.delete(task);
    await this.#write((s) => s.delete(all(task)));
  }

  /** Forgets the tasks of closed tabs: all that are older than ms. Task IDs are UUIDv7 and begin with their time. */
  async forgetOlder(ms: number): Promise<void> {
    const hex = Math.max(0, Date.now() - ms).toString(16).padStart(12, '0');
    await this.#write((s) => s.delete(IDBKeyRange.upperBound([`${hex.slice(0, 8)}-${hex.slice(8)}`])));
  }

  async #store(mode: IDBTransactionMode): Promise<IDBObjectStore> {
    return (await this.#db).transaction('events', mode, { durability: 'relaxed' }).objectStore('events');
  }

  async #write(op: (s: IDBObjectStore) => unknown): Promise<boolean> {
    try {
      const store = await this.#store('readwrite');
      const done = new Promise<boolean>((resolve) => {
        store.transaction.oncomplete = () => resolve(true);
        store.transaction.onabort = () => resolve(false);
      });
      op(store);
      return await done;
    } catch {
      return false;
    }
  }
}

/** The characters of lines, if they are lines: bodies are strangers'. */
function size(lines: unknown): number {
  return Array.isArray(lines) ? lines.reduce((n: number, l) => n + String(l).length, 0) : 0;
}

/** The range of all keys of one task: an array is above every number and text. */
function all(task: string): IDBKeyRange {
  return IDBKeyRange.bound([task], [task, []]);
}
