import type { Platform, Socket } from './platform.ts';
import type { StoredMeta } from './store.ts';

/** How long the answer to a POST may take. */
export const postMs = 10_000;
/** A POST that found nobody is sent so often again, after a random time below 200, 400 … ms. */
export const maxPosts = 5;
/** Messages that wait to be sent. */
export const maxQueued = 1000;
/** Characters of a frame: more than a worker sends. */
export const maxFrameChars = 1 << 20;

/**
 * EventStream is a Socket over plain HTTP, for where WebSocket cannot pass. What the server sends is the
 * response to POST events, whose body is the first message sent; the others go one after the other to POST
 * messages, each again until it is answered: they may come twice, and all may. Both paths are beside that of url.
 *
 * It ends like a socket that was cut if a message cannot be sent in maxPosts tries or postMs, if the
 * server knows no stream of this token, or if more than maxQueued wait. A message with data '' is a sign of life.
 */
export class EventStream implements Socket {
  onopen: (() => void) | null = null;
  onmessage: ((e: { data: unknown }) => void) | null = null;
  onclose: ((e: { code: number; reason: string }) => void) | null = null;
  #url: string;
  #platform: Platform;
  #meta: () => StoredMeta | undefined;
  #abort = new AbortController();
  #queue: string[] | undefined; // undefined before the first message; its head is on the way

  /** meta is the last socket_meta: the first message goes by its route, the others show its token. */
  constructor(url: string, platform: Platform, meta: () => StoredMeta | undefined) {
    this.#url = url;
    this.#platform = platform;
    this.#meta = meta;
    queueMicrotask(() => this.onopen?.());
  }

  /** Messages wait to be sent: better collect what is to come. */
  get busy(): boolean {
    return !!this.#queue?.length;
  }

  send(data: string): void {
    if (!this.#queue) {
      this.#queue = [];
      void this.#read(data);
    } else {
      const n = this.#queue.push(data);
      if (n === 1) void this.#drain(this.#queue);
      if (n > maxQueued) this.#end('overflow');
    }
  }

  close(): void {
    this.#abort.abort();
  }

  #post(path: string, body: string, init: RequestInit): Promise<Response> {
    const m = this.#meta();
    const headers = { 'Content-Type': 'application/json', ...(m && { 'X-Route': m.route, ...(path === 'messages' && { 'X-Socket-Meta': m.token }) }) };
    return this.#platform.fetch(new URL(path, this.#url).href, { method: 'POST', body, headers, ...init });
  }

  async #read(hello: string): Promise<void> {
    try {
      const r = await this.#post('events', hello, { signal: this.#abort.signal });
      if (!r.ok) return this.#end('HTTP ' + r.status);
      const reader = r.body!.getReader();
      const text = new TextDecoder();
      for (let rest = ''; rest.length < maxFrameChars; ) {
        const { done, value } = await reader.read();
        if (done) break;
        this.onmessage?.({ data: '' });
        const lines = (rest + text.decode(value, { stream: true })).split('\n');
        rest = lines.pop()!;
        for (const l of lines) if (l.startsWith('data:')) this.onmessage?.({ data: l.slice(5) });
      }
    } catch {} // cut, as if it ended
    this.#end('stream ended');
  }

  async #drain(queue: string[]): Promise<void> {
    for (let tries = 0, body; (body = queue[0]) && !this.#abort.signal.aborted; ) {
      const late = this.#platform.setTimeout(() => this.#end('no answer'), postMs);
      // keepalive: the last acknowledgement outlives the page; the browser has 64 KiB for all of them.
      const { status } = await this.#post('messages', body, { keepalive: body.length < 9999 }).catch(() => ({ status: 0 }));
      this.#platform.clearTimeout(late);
      if (status === 400 || status === 413 || (status >= 200 && status < 300)) {
        queue.shift(); // taken, or refused for good
        tries = 0;
      } else if ((status && status < 429) || ++tries > maxPosts) this.#end('HTTP ' + status);
      else await new Promise<void>((go) => this.#platform.setTimeout(go, this.#platform.random() * (100 << tries)));
    }
  }

  #end(reason: string): void {
    this.close();
    this.onclose?.({ code: 1006, reason });
  }
}
