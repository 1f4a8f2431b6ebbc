/** The part of a WebSocket that the client uses. */
export interface Socket {
  /** What is sent now would wait for what was sent before: only of an EventStream. */
  readonly busy?: boolean;
  onopen: (() => void) | null;
  onmessage: ((e: { data: unknown }) => void) | null;
  onclose: ((e: { code: number; reason: string }) => void) | null;
  send(data: string): void;
  close(code?: number): void;
}

/** The part of the Storage interface that the client uses; sessionStorage is one. */
export type SessionStorage = Pick<Storage, 'length' | 'key' | 'getItem' | 'setItem' | 'removeItem'>;

/** What the client needs of the world around it; tests give their own. */
export interface Platform {
  connect(url: string, protocol: string): Socket;
  fetch(url: string, init: RequestInit): Promise<Response>;
  now(): number;
  random(): number;
  setTimeout(fn: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  /** Where a relative URL is resolved. */
  base?: string | undefined;
  storage?: SessionStorage | undefined;
  locks?: Pick<LockManager, 'request'> | undefined;
  /** Tells pagehide, pageshow and online. */
  window?: EventTarget | undefined;
  /** Tells visibilitychange. */
  document?: (EventTarget & { readonly visibilityState: string }) | undefined;
}

/** The page or process that this module runs in. */
export function here(): Platform {
  const g = globalThis;
  return {
    connect: (url, protocol) => new WebSocket(url, protocol) as unknown as Socket,
    fetch: (url, init) => fetch(url, init),
    now: Date.now,
    random: Math.random,
    setTimeout: (fn, ms) => setTimeout(fn, ms),
    clearTimeout: (timer) => clearTimeout(timer as number),
    base: g.location?.href,
    storage: sessionStorageIfAny(),
    locks: g.navigator?.locks,
    window: g.window,
    document: g.document,
  };
}

function sessionStorageIfAny(): SessionStorage | undefined {
  try {
    return globalThis.sessionStorage; // throws where cookies are blocked
  } catch {
    return undefined;
  }
}

/** A new task ID of 128 random bits; crypto.randomUUID is missing on plain http. */
export function newID(): string {
  return Array.from(crypto.getRandomValues(new Uint32Array(4)), (x) => x.toString(36)).join('-');
}
