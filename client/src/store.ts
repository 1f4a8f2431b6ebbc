import type { SessionStorage } from './platform.ts';
import type { Position, Priority } from './wire.ts';

/** What is kept of the session. */
export interface StoredMeta {
  client_id: string;
  token: string;
  route: string;
  /** It came by an event stream. */
  sse: boolean;
}

/** What is kept of an open task; params and priority only until the server has accepted it. */
export interface StoredTask {
  kind: string;
  position: Position;
  params?: object | undefined;
  priority?: Priority | undefined;
}

/**
 * Store keeps the session where it survives a reload: one key for the meta, one for each open task, so
 * that an event rewrites little. When the storage refuses a write (it is full, or forbidden), the
 * session is wiped from it and lives in memory from then on: a half-kept session would resume at a
 * position that the server has long left. failed is told once.
 */
export class Store {
  #storage: SessionStorage | undefined;
  #prefix: string;
  #failed: (e: unknown) => void;
  #meta: StoredMeta | undefined;

  constructor(storage: SessionStorage | undefined, prefix: string, failed: (e: unknown) => void) {
    this.#storage = storage;
    this.#prefix = prefix + ':';
    this.#failed = failed;
    this.#meta = this.#read<StoredMeta>(this.#prefix + 'meta');
  }

  meta(): StoredMeta | undefined {
    return this.#meta;
  }

  tasks(): StoredTask[] {
    return this.#keys('task:').flatMap((k) => this.#read<StoredTask>(k) ?? []);
  }

  putMeta(m: StoredMeta): void {
    this.#meta = m;
    this.#write('meta', m);
  }

  putTask(t: StoredTask): void {
    this.#write('task:' + t.position.task_id, t);
  }

  dropTask(id: string): void {
    this.#storage?.removeItem(this.#prefix + 'task:' + id);
  }

  /** Forgets the session. */
  clear(): void {
    this.#meta = undefined;
    this.#wipe();
  }

  #wipe(): void {
    for (const k of this.#keys('')) this.#storage!.removeItem(k);
  }

  #keys(kind: string): string[] {
    const all = Array.from({ length: this.#storage?.length ?? 0 }, (_, i) => this.#storage!.key(i) ?? '');
    return all.filter((k) => k.startsWith(this.#prefix + kind)).sort();
  }

  #read<T>(key: string): T | undefined {
    try {
      return JSON.parse(this.#storage?.getItem(key) ?? 'null') ?? undefined;
    } catch {
      return undefined;
    }
  }

  #write(key: string, value: unknown): void {
    try {
      this.#storage?.setItem(this.#prefix + key, JSON.stringify(value));
    } catch (e) {
      this.#wipe();
      this.#storage = undefined;
      this.#failed(e);
    }
  }
}
