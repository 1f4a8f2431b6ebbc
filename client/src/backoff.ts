export interface BackoffOptions {
  /** Milliseconds; the n-th retry in a row waits at most baseDelayMs * 2^n: 200, 400, 800 … Default 100. */
  baseDelayMs?: number | undefined;
  /** The most that a retry waits, unless the server names a time itself. Default 10 000. */
  maxDelayMs?: number | undefined;
}

/** What a client does after its socket has gone. */
export type Verdict = 'stop' | 'resume' | 'retry';

/** The longest wait that a server may ask for. */
export const maxRetryAfterMs = 3_600_000;

/**
 * Judges a close code: policy violation and 4000-4099 stop, 4200-4299 resume at once, all others are
 * tried again.
 */
export function verdict(code: number): Verdict {
  if (code === 1008 || (code >= 4000 && code < 4100)) return 'stop';
  return code >= 4200 && code < 4300 ? 'resume' : 'retry';
}

/**
 * Milliseconds to wait before the attempt-th retry in a row, counted from 1. random is in [0, 1).
 * Full jitter: anything between 0 and the bound is as likely, so that a crowd spreads out. A resume
 * goes at once the first time only, so that a server that keeps asking for it is not hammered. The
 * server's own retryAfterMs is a lower bound.
 */
export function delay(attempt: number, v: Verdict, retryAfterMs: number, random: number, o: BackoffOptions): number {
  const base = o.baseDelayMs ?? 100;
  const jitter = random * Math.min(o.maxDelayMs ?? 10_000, base * 2 ** attempt);
  const asked = Math.min(Math.max(0, retryAfterMs), maxRetryAfterMs);
  return Math.round(Math.max(asked, v === 'resume' && attempt === 1 ? 0 : jitter));
}
