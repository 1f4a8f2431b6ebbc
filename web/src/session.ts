import { Client, TaskError } from '../../client/src/index.ts';
import type { State, Task } from '../../client/src/index.ts';
import type { Journal } from './journal.ts';
import { readPage } from './earlier.ts';
import type { EarlierPage } from './earlier.ts';
import { apply, ended, fail, newTaskView } from './task-view.ts';
import type { TaskState, TaskView } from './task-view.ts';

/** Tasks that this tab keeps; when a new one would be over it, the oldest that has ended is an earlier one. */
export const maxTasks = 20;

/** One task of this tab as sessionStorage keeps it; its events are in the journal. */
interface Entry {
  id: string;
  kind: string;
  params?: object | undefined;
  at: number;
  end?: TaskState;
  error?: TaskView['error'];
}

/** The parts of the page's storage that a Session uses. */
export type TabStorage = Pick<Storage, 'getItem' | 'setItem'>;

const key = 'wscluster-console.tasks';

/**
 * Session joins the client, the journal and the views of this tab's tasks. An event is first journalled,
 * then shown, and only then does its handler return and the client acknowledge it. changed is called after
 * every change, with the task whose view changed, if it was only that.
 */
export class Session {
  readonly tasks: TaskView[] = []; // newest first
  /** Tasks of this session that only the server knows, of earlier pages; newest first. */
  earlier: TaskView[] = [];
  /** Where the list of earlier tasks goes on; empty if it is whole, undefined before it was read. */
  older: string | undefined;
  /** Task runners that did not answer: what they have is not in the list. */
  missing: string[] = [];
  /** Why the earlier tasks could not be read; empty if they were. */
  earlierFault = '';
  connection: State = { name: 'idle' };
  /** The next attempt to connect, in Unix milliseconds. */
  retryAt = 0;
  /** Some of what is shown could not be journalled: a reload will show less. */
  unkept = false;

  #client: Client;
  #journal: Journal;
  #storage: TabStorage | undefined;
  #changed: (task?: TaskView) => void;
  #loaded = new Map<string, Promise<void>>();

  constructor(client: Client, journal: Journal, storage: TabStorage | undefined, changed: (task?: TaskView) => void) {
    this.#client = client;
    this.#journal = journal;
    this.#storage = storage;
    this.#changed = changed;
    for (const e of this.#stored()) {
      const v = newTaskView(e.id, e.kind, e.params, e.at);
      // Until the client says that it is open, a task that had not ended belongs to nobody: a copied tab.
      v.state = e.end ?? 'lost';
      v.error = e.error;
      this.tasks.push(v);
    }
    client.on('state', (s) => {
      this.connection = s;
      if (s.name === 'waiting') this.retryAt = Date.now() + s.delayMs;
      if (s.name === 'open') void this.readEarlier();
      changed();
    });
    client.on('task', (t) => this.#restore(t));
    client.on('error', (e) => console.warn(e));
  }

  get meta() {
    return this.#client.meta;
  }

  connect(): void {
    this.#client.connect();
  }

  /** Submits a task and puts it on top of the list. Throws a TaskError if it is certain to be refused. */
  submit(kind: string, params: object): TaskView {
    const task = this.#client.submit(kind, params);
    const v = newTaskView(task.id, kind, params, Date.now());
    this.#loaded.set(v.id, Promise.resolve());
    this.#add(v);
    this.#follow(v, task);
    return v;
  }

  find(id: string): TaskView | undefined {
    return this.tasks.find((t) => t.id === id) ?? this.earlier.find((t) => t.id === id);
  }

  /** Reports whether events of a task come to this page. */
  follows(v: TaskView): boolean {
    return this.#client.tasks.some((t) => t.id === v.id);
  }

  /** Reads the newest of the session's earlier tasks from the server, or, with older, the next ones behind those that are known. */
  async readEarlier(older = false): Promise<void> {
    try {
      const before = older && this.older ? `&before=${encodeURIComponent(this.older)}` : '';
      const page = readPage(await (await this.#ask(`/v1/tasks?limit=50${before}`)).json());
      this.#merge(page.tasks);
      this.missing = page.missing;
      if (older || this.older === undefined) this.older = page.next;
      this.earlierFault = '';
    } catch (e) {
      this.earlierFault = (e as Error).message;
    }
    this.#changed();
  }

  /** Takes what the server says of tasks that no events come of. */
  #merge(told: EarlierPage['tasks']): void {
    for (const t of told) {
      const own = this.tasks.find((x) => x.id === t.id);
      const known = this.earlier.find((x) => x.id === t.id);
      if (own?.state === 'lost' && ended(t.state) && !this.follows(own)) {
        own.state = t.state;
        own.error = t.error;
        own.lastLine = t.lastLine;
        if (this.#loaded.has(own.id) && own.log.last < own.lastLine) void this.#readLog(own);
        this.#save();
      } else if (!own && (!known || known.told) && known?.told !== t.told) {
        this.earlier = this.earlier.filter((x) => x !== known).concat(t);
        this.#loaded.delete(t.id);
      }
    }
    this.earlier.sort((a, b) => b.submittedAt - a.submittedAt);
  }

  /** Asks for the end of a task. */
  cancel(v: TaskView): void {
    const task = this.#client.tasks.find((t) => t.id === v.id);
    if (!task) return;
    task.cancel();
    v.canceling = true;
    this.#changed(v);
  }

  /** Reads what the journal has of a task, once. */
  load(v: TaskView): Promise<void> {
    let loaded = this.#loaded.get(v.id);
    if (!loaded) {
      loaded = this.#journal.read(v.id).then((events) => {
        const state = v.state;
        for (const e of events) apply(v, e);
        if (ended(state)) v.state = state;
        this.#changed(v);
        if (v.log.last < v.lastLine) void this.#readLog(v);
      });
      this.#loaded.set(v.id, loaded);
    }
    return loaded;
  }

  /** Saves the whole log of a task as a file. Rejects with the server's words if there is none. */
  async download(v: TaskView): Promise<void> {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(await (await this.#log(v, 'format=text')).blob());
    link.download = `${v.id}.log`;
    link.click();
    URL.revokeObjectURL(link.href);
  }

  /** Reads the log of a task that was over before this page: the client gives only what is to come. */
  async #readLog(v: TaskView): Promise<void> {
    try {
      const body = (await this.#log(v, `format=ndjson&from_line=${v.log.last + 1}`)).body!;
      for await (const lines of textLines(body)) {
        const rows = lines.map((l) => JSON.parse(l) as { line: number; text: string });
        if (rows.length) v.log.append(rows[0]!.line, rows.map((r) => r.text));
        this.#changed(v);
      }
    } catch (e) {
      v.log.remark(`the log cannot be read: ${(e as Error).message}`);
      this.#changed(v);
    }
  }

  async #log(v: TaskView, query: string): Promise<Response> {
    return this.#ask(`/v1/tasks/${v.id}/log?${query}`);
  }

  /** Asks the server as this client. Rejects with the server's words if it refuses. */
  async #ask(path: string): Promise<Response> {
    await this.#open();
    const answer = await fetch(path, { headers: { 'X-Socket-Meta': this.meta?.token ?? '' } });
    if (!answer.ok) throw new Error(((await answer.json().catch(() => ({}))) as { detail?: string }).detail ?? `the server answered ${answer.status}`);
    return answer;
  }

  /** Resolves when the client is connected. */
  #open(): Promise<void> {
    if (this.connection.name === 'open') return Promise.resolve();
    return new Promise((resolve) => {
      const off = this.#client.on('state', (s) => {
        if (s.name !== 'open') return;
        off();
        resolve();
      });
    });
  }

  #restore(task: Task): void {
    let v = this.tasks.find((x) => x.id === task.id);
    if (!v) {
      this.earlier = this.earlier.filter((x) => x.id !== task.id);
      this.#add((v = newTaskView(task.id, task.kind, undefined, Date.now())));
    }
    v.state = task.position.attempt || task.position.run_id ? 'running' : 'queued';
    void this.load(v);
    this.#follow(v, task);
    this.#changed();
  }

  #follow(v: TaskView, task: Task): void {
    task.on('*', async (step) => {
      await this.load(v);
      if (step.event === 'reset') await this.#journal.forget(v.id);
      else if (!(await this.#journal.keep(step))) this.unkept = true;
      apply(v, step);
      if (ended(v.state)) this.#save();
      this.#changed(v);
    });
    task.accepted.then(
      (a) => {
        v.queuePosition = a.queuePosition;
        if (v.state === 'submitting') v.state = 'queued';
        this.#changed(v);
      },
      () => {}, // result says the same
    );
    task.result.catch((e: unknown) => {
      if (e instanceof TaskError) fail(v, e);
      this.#save();
      this.#changed(v);
    });
  }

  #add(v: TaskView): void {
    this.tasks.unshift(v);
    while (this.tasks.length > maxTasks) {
      const i = this.tasks.findLastIndex((x) => ended(x.state));
      if (i < 0) break; // the client's own bound on open tasks holds
      const [old] = this.tasks.splice(i, 1);
      this.earlier.unshift(old!);
      void this.#journal.forget(old!.id);
    }
    this.#save();
    this.#changed();
  }

  #stored(): Entry[] {
    try {
      return JSON.parse(this.#storage?.getItem(key) ?? '[]') as Entry[];
    } catch {
      return [];
    }
  }

  #save(): void {
    const entries = this.tasks.map((v): Entry => {
      const e = { id: v.id, kind: v.kind, params: v.params, at: v.submittedAt };
      return ended(v.state) ? { ...e, end: v.state, ...(v.error && { error: v.error }) } : e;
    });
    try {
      this.#storage?.setItem(key, JSON.stringify(entries));
    } catch {
      this.unkept = true;
    }
  }
}

/** The whole lines of a stream, as many at a time as come together. */
async function* textLines(body: ReadableStream<Uint8Array>): AsyncGenerator<string[]> {
  const reader = body.getReader();
  const text = new TextDecoder();
  let begun = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (begun + text.decode(value, { stream: true })).split('\n');
    begun = lines.pop()!;
    yield lines;
  }
}
