import type { Platform, Socket } from './platform.ts';
import { decode, maxClientFrame, subprotocol } from './wire.ts';
import type { Bye, ClientMessage, ServerMessage } from './wire.ts';

/** How long a socket may take until its socket_meta is here. */
export const welcomeMs = 10_000;
/** How long the answer to a ping may take. */
export const pongMs = 2_000;

/** What a Link tells its owner. Nothing is told after gone. */
export interface LinkOwner {
  opened(): void;
  message(m: ServerMessage, chars: number): void;
  gone(code: number, reason: string, retryAfterMs: number): void;
}

/**
 * Link is one socket from its dial to its end. A socket that brings no socket_meta in welcomeMs, or
 * nothing at all for twice the heartbeat and then no answer to a ping in pongMs, counts as gone with
 * code 1006: browsers notice neither a cut cable nor a frozen proxy.
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

  constructor(url: string, platform: Platform, owner: LinkOwner) {
    this.#platform = platform;
    this.#owner = owner;
    this.#arm(() => this.#end(1006, 'no answer'), welcomeMs);
    const s = (this.#socket = platform.connect(url, subprotocol));
    s.onopen = () => {
      if (this.#over) return;
      this.#open = true;
      owner.opened();
    };
    s.onmessage = (e) => this.#receive(e.data);
    s.onclose = (e) => this.#end(e.code, e.reason);
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
      if (this.#heardAt === asked) this.#end(1006, 'silent');
      else this.#watch();
    }, pongMs);
  }

  /** Closes the socket; the owner hears nothing more. */
  close(code?: number): void {
    this.#release();
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

  #end(code: number, reason: string): void {
    if (this.#over) return;
    this.close();
    const bye = this.#bye;
    this.#owner.gone(bye?.code ?? code, bye?.reason || reason, bye?.retry_after_ms ?? 0);
  }

  #release(): void {
    this.#over = true;
    this.#open = false;
    this.#platform.clearTimeout(this.#timer);
  }
}

/** Whether m fits into the largest frame that the server takes. */
export function fits(m: ClientMessage): boolean {
  return new TextEncoder().encode(JSON.stringify(m)).length <= maxClientFrame;
}
