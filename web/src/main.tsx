import { render } from 'preact';
import { Client, wholeLogs } from '../../client/src/index.ts';
import { Journal } from './journal.ts';
import { Overview } from './overview.ts';
import { Page } from './page.tsx';
import { readKinds } from './params.ts';
import type { KindForm } from './params.ts';
import { Session } from './session.ts';

const root = document.getElementById('app')!;
const week = 7 * 24 * 3600 * 1000;

let kinds: KindForm[] = [];
let drawnAt = 0;
let drawing = false;

/**
 * Draws soon, at once after a pause and at most every 60 ms, however much has changed: painting a log that
 * scrolls costs more than taking its lines in. A hidden page has no frames, and needs none.
 */
function draw(): void {
  if (drawing) return;
  drawing = true;
  setTimeout(() => requestAnimationFrame(drawNow), Math.max(0, drawnAt + 60 - Date.now()));
}

function drawNow(): void {
  drawing = false;
  drawnAt = Date.now();
  render(<Page client={client} session={session} overview={overview} kinds={kinds} changed={draw} />, root);
}

const journal = new Journal(globalThis.indexedDB);
void journal.forgetOlder(week);
const client = new Client({ logs: wholeLogs });
const session = new Session(client, journal, tabStorage(), draw);
const overview = new Overview(client, draw);
session.connect();
draw();
document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && session.connection.name === 'open' && void session.readEarlier());
setInterval(() => document.visibilityState === 'visible' && draw(), 500); // durations and the countdown

void askKinds();

/** Asks for the kinds now and then: soon while there are none. Those of runners that went away stay, for they may come back. */
async function askKinds(): Promise<void> {
  if (document.visibilityState === 'visible') {
    const answer = await fetch('/v1/kinds').catch(() => undefined);
    const now = readKinds(answer?.ok && (await answer.json().catch(() => undefined)));
    if (now.length) kinds = now;
    draw();
  }
  setTimeout(() => void askKinds(), kinds.length ? 30_000 : 2000);
}

function tabStorage(): Storage | undefined {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
}
