import type { Client } from './client.ts';
import { TaskError } from './task.ts';
import type { Message, Missed, Presence, ServerMessage, Subscribed } from './wire.ts';

/** A message of a channel. snapshot: it tells how things stand, and may have been told before. */
export type ChannelMessage = Message & { snapshot: boolean };

export interface SubscribeOptions {
  /** A ticket that allows it, where not everybody may. */
  grant?: string;
  onMessage(m: ChannelMessage): void;
  /** Messages did not come, and will not. */
  onMissed?(m: Missed): void;
  /**
   * The subscription begins, or begins again on a new connection: the messages of its snapshot follow. What was published
   * in between and is not in the snapshot does not come.
   */
  onSubscribed?(m: Subscribed): void;
  /** It is refused. If e is retryable, it is asked for again by itself, else it is over. */
  onError?(e: TaskError): void;
}

/**
 * Subscribes to a channel: for as long as the client lives, on each connection anew, until the returned function is
 * called. Messages come at most once and in the order of each publisher. Who subscribes to a channel a second
 * time begins it anew for all of its subscribers. The server allows 100 channels on a connection.
 */
export function subscribe(client: Client, channel: string, options: SubscribeOptions): () => void {
  return channelsOf(client).add(channel, options);
}

/**
 * How many are subscribed to a channel in the whole cluster; it needs what subscribe would need. Rejects with a TaskError
 * if it is refused, or (unavailable) if there is no connection or it ends before the answer.
 */
export function presence(client: Client, channel: string, options: { grant?: string } = {}): Promise<Presence> {
  return channelsOf(client).presence(channel, options.grant);
}

interface Subscription {
  takers: Set<SubscribeOptions>;
  asked: string; // the ID of the last subscribe; messages before its answer are of a subscription that has ended
  live: boolean; // it has been answered
  left: number; // messages of the snapshot that have not come
  refused: number; // times in a row
}

const all = new WeakMap<Client, Channels>();

function channelsOf(client: Client): Channels {
  let c = all.get(client);
  if (!c) all.set(client, (c = new Channels(client)));
  return c;
}

class Channels {
  #client: Client;
  #subs = new Map<string, Subscription>();
  #asked = 0;
  #pending = new Set<(e: TaskError) => void>(); // presences without an answer

  constructor(client: Client) {
    this.#client = client;
    client.on('message', (m) => this.#receive(m));
    client.on('state', (s) => {
      const e = new TaskError({ code: 'unavailable', message: 'the connection ended', retryable: true });
      for (const reject of this.#pending) reject(e);
      this.#pending.clear();
      for (const [channel, sub] of this.#subs) {
        sub.live = false;
        if (s.name === 'open') this.#ask(channel, sub);
      }
    });
  }

  add(channel: string, taker: SubscribeOptions): () => void {
    const sub = this.#subs.get(channel) ?? { takers: new Set(), asked: '', live: false, left: 0, refused: 0 };
    this.#subs.set(channel, sub);
    sub.takers.add(taker);
    this.#ask(channel, sub);
    return () => {
      if (!sub.takers.delete(taker) || sub.takers.size) return;
      if (this.#subs.get(channel) === sub) this.#subs.delete(channel);
      if (sub.asked) this.#client.request({ type: 'unsubscribe', id: this.#id(), channel }, () => {});
      sub.asked = '';
    };
  }

  presence(channel: string, grant: string | undefined): Promise<Presence> {
    return new Promise((resolve, reject) => {
      this.#pending.add(reject);
      const sent = this.#client.request({ type: 'presence', id: this.#id(), channel, ...(grant && { grant }) }, (m) => {
        this.#pending.delete(reject);
        if (m.type === 'error') reject(new TaskError(m));
        else resolve(m as Presence);
      });
      if (sent) return;
      this.#pending.delete(reject);
      reject(new TaskError({ code: 'unavailable', message: 'not connected', retryable: true }));
    });
  }

  #id(): string {
    return 'channel:' + ++this.#asked;
  }

  #ask(channel: string, sub: Subscription): void {
    const id = (sub.asked = this.#id());
    sub.live = false;
    const grant = [...sub.takers].find((t) => t.grant)?.grant;
    this.#client.request({ type: 'subscribe', id, channel, ...(grant && { grant }) }, (m) => {
      if (sub.asked !== id) return;
      if (m.type !== 'error') {
        sub.live = true;
        sub.left = (m as Subscribed).snapshot;
        sub.refused = 0;
        return each(sub, (t) => t.onSubscribed?.(m as Subscribed));
      }
      if (m.retryable) this.#client.later(() => sub.asked === id && this.#ask(channel, sub), ++sub.refused, m);
      else {
        this.#subs.delete(channel);
        sub.asked = '';
      }
      each(sub, (t) => t.onError?.(new TaskError(m)));
    });
  }

  #receive(m: ServerMessage): void {
    if (m.type !== 'message' && m.type !== 'missed') return;
    const sub = this.#subs.get(m.channel);
    if (!sub?.live) return;
    if (m.type === 'missed') {
      sub.left = m.count ? Math.max(0, sub.left - m.count) : 0; // in the midst of a snapshot: the next ones of that
      return each(sub, (t) => t.onMissed?.(m));
    }
    const snapshot = sub.left > 0;
    if (snapshot) sub.left--;
    each(sub, (t) => t.onMessage({ ...m, snapshot }));
  }
}

/** Tells all takers; one that throws does not keep it from the others. */
function each({ takers }: Subscription, tell: (t: SubscribeOptions) => void): void {
  for (const t of [...takers]) {
    try {
      tell(t);
    } catch (e) {
      queueMicrotask(() => {
        throw e;
      });
    }
  }
}
