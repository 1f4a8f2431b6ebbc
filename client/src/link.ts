import type { Platform, Socket } from './platform.ts';
import { decode, maxClientFrame } from './wire.ts';
import type { Bye, ClientMessage, ServerMessage } from './wire.ts';

/** How long a socket may take to open, and then until its socket_meta is here. */
export const openMs = 5_000;
export const welcomeMs = 10_000;
/** How long the answer to a ping may take. */
export const pongMs = 2_000;

/** How a Link ended: what the server said last, or what the socket did. */
export type Ending = Pick<Bye, 'code' | 'reason' | 'retry_after_ms'>;

/** What a Link tells its owner. Nothing is told after gone. */
export interface LinkOwner {
  opened(): void;
  message(m: ServerMessage, chars: number): void;
  gone(end: Ending): void;
}

/**
 * Link is one socket, or stream, from its dial to its end. One that does not open in openMs, brings no socket_meta
 * in welcomeMs, or nothing at all for twice the heartbeat and then no answer to a ping in pongMs, counts as gone
 * with code 1006: browsers notice neither a cut cable nor a frozen proxy.
 */
export class Link {
  #platform: Platform;
  #owner: LinkOwner;
  #socket: Socket;
  #open = false;
  #over = false;
  #bye: Bye | undefined;
  #timer: unknown;
  #heardAt = 0;
  #heartbeatMs = 0; // 0 until the first socket_meta
  #asking = false;

  constructor(s: Socket, platform: Platform, owner: LinkOwner) {
    this.#platform = platform;
    this.#owner = owner;
    this.#socket = s;
    const late = () => this.#end({ code: 1006, reason: 'no answer' });
    this.#arm(late, openMs);
    s.onopen = () => {
      if (this.#over) return;
      this.#open = true;
      this.#arm(late, welcomeMs);
      owner.opened();
    };
    s.onmessage = (e) => this.#receive(e.data);
    s.onclose = (e) => this.#end(e);
  }

  /** What is sent now would wait for what was sent before. */
  get busy(): boolean {
    return !!this.#socket.busy;
  }

  /** It brought a socket_meta. */
  get welcomed(): boolean {
    return !!this.#heartbeatMs;
  }

  /** Sends a message if the socket is open; false means that it went nowhere. */
  send(m: ClientMessage): boolean {
    if (!this.#open) return false;
    this.#socket.send(JSON.stringify(m));
    return true;
  }

  /** Asks for a sign of life unless a question is pending. */
  probe(): void {
    if (!this.#heartbeatMs || this.#asking) return;
    const asked = this.#heardAt;
    this.#asking = this.send({ type: 'ping' });
    this.#arm(() => {
      this.#asking = false;
      if (this.#heardAt === asked) this.#end({ code: 1006, reason: 'silent' });
      else this.#watch();
    }, pongMs);
  }

  /** Closes the socket; the owner hears nothing more. */
  close(code?: number): void {
    this.#over = true;
    this.#open = false;
    this.#platform.clearTimeout(this.#timer);
    this.#socket.close(code);
  }

  #receive(data: unknown): void {
    if (this.#over) return;
    this.#heardAt = Math.max(this.#platform.now(), this.#heardAt + 1);
    const m = decode(data);
    if (m?.type === 'bye') this.#bye = m;
    if (m?.type === 'socket_meta') {
      const first = !this.#heartbeatMs;
      this.#heartbeatMs = m.heartbeat_ms > 0 ? m.heartbeat_ms : 15_000;
      if (first) this.#watch();
    }
    if (m) this.#owner.message(m, (data as string).length);
  }

  #watch(): void {
    const quiet = this.#platform.now() - this.#heardAt;
    const limit = 2 * this.#heartbeatMs;
    if (quiet >= limit) this.probe();
    else this.#arm(() => this.#watch(), limit - Math.max(0, quiet));
  }

  #arm(fn: () => void, ms: number): void {
    this.#platform.clearTimeout(this.#timer);
    this.#timer = this.#platform.setTimeout(fn, ms);
  }

  #end(e: Ending): void {
    if (this.#over) return;
    this.close();
    this.#owner.gone(this.#bye ?? e);
  }
}

/** Whether m fits into the largest frame that the server takes. */
export function fits(m: ClientMessage): boolean {
  return new TextEncoder().encode(JSON.stringify(m)).length <= maxClientFrame;
}
