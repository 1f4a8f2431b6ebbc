import type { Client } from './client.ts';
import { fits } from './link.ts';
import type { Reply, Request } from './wire.ts';

/** Replies that are remembered by their keys, and those that wait for a connection. */
export const maxReplies = 100;
/** Characters of an error, of at most three bytes each: the server takes 1 KiB. */
export const maxErrorChars = 340;

/**
 * Answers what backends ask of this client: with what handler returns, or its promise resolves to, as JSON; or with
 * the message of what it throws. Requests with one key are one: handler is called once for them, and
 * they get the same reply, as long as the page lives and the last maxReplies keys go. A reply of more than
 * 64 KiB becomes an error. Nobody waits for it when timeout_ms are over. A reply that finds no connection is sent on the next one.
 *
 * Call it once. It answers until the returned function is called; a client on which it never was answers nothing, and
 * backends wait in vain.
 */
export function onRequest(client: Client, handler: (r: Request) => unknown): () => void {
  const replies = new Map<string, Promise<Partial<Reply>>>();
  let unsent: Reply[] = [];
  const send = (r: Reply) => {
    if (!client.send(r)) unsent = [...unsent, r].slice(-maxReplies);
  };
  const offs = [
    client.on('message', (m) => {
      if (m.type !== 'request') return;
      let reply = replies.get(m.key);
      if (!reply) {
        replies.set(m.key, (reply = answer(handler, m)));
        if (replies.size > maxReplies) replies.delete(replies.keys().next().value!);
      }
      void reply.then((r) => send({ type: 'reply', request_id: m.request_id, ...r }));
    }),
    client.on('state', (s) => {
      if (s.name !== 'open') return;
      const late = unsent;
      unsent = [];
      late.forEach(send);
    }),
  ];
  return () => offs.forEach((off) => off());
}

async function answer(handler: (r: Request) => unknown, r: Request): Promise<Partial<Reply>> {
  try {
    const body = (await handler(r)) ?? null;
    if (fits({ type: 'reply', request_id: r.request_id.padEnd(128), body })) return { body };
    throw new Error('the reply has more than 64 KiB');
  } catch (e) {
    return { error: String((e as Error)?.message || e).slice(0, maxErrorChars) };
  }
}
