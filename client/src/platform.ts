/** The part of a WebSocket that the client uses. */
export interface Socket {
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
    now: () => Date.now(),
    random: () => Math.random(),
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

/** A UUIDv7 (RFC 9562); crypto.randomUUID is missing on plain http and makes version 4. */
export function uuid(now: number): string {
  const b = crypto.getRandomValues(new Uint8Array(16));
  for (let i = 5, t = now; i >= 0; i--, t = Math.floor(t / 256)) b[i] = t % 256;
  b[6] = (b[6]! & 0x0f) | 0x70;
  b[8] = (b[8]! & 0x3f) | 0x80;
  const hex = Array.from(b, (x) => x.toString(16).padStart(2, '0')).join('');
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}
