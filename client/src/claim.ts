import type { Platform } from './platform.ts';

/** How long a claim waits for the page before to let go: a reload hands over within milliseconds. */
export const claimWaitMs = 1000;

/**
 * Claim makes this page the only one that uses a stored session. window.open and "duplicate tab" copy
 * sessionStorage, so two pages can hold the same token; a Web Lock on the client ID tells the copy from
 * the original. Where there are no Web Locks (plain http) every claim succeeds, and the server's rule
 * decides: the newest socket replaces the older.
 */
export class Claim {
  #platform: Platform;
  #held: { id: string; release: () => void } | undefined;

  constructor(platform: Platform) {
    this.#platform = platform;
  }

  /** Resolves to false if another page holds id and does not let go within claimWaitMs. */
  take(id: string): Promise<boolean> {
    const locks = this.#platform.locks;
    if (!locks || this.#held?.id === id) return Promise.resolve(true);
    this.release();
    const abort = new AbortController();
    const timer = this.#platform.setTimeout(() => abort.abort(), claimWaitMs);
    return new Promise((resolve) => {
      locks
        .request('wscluster:' + id, { signal: abort.signal }, () => {
          this.#platform.clearTimeout(timer);
          resolve(true);
          return new Promise<void>((release) => (this.#held = { id, release }));
        })
        .catch((e: unknown) => resolve((e as Error)?.name !== 'AbortError'));
    });
  }

  release(): void {
    this.#held?.release();
    this.#held = undefined;
  }
}
