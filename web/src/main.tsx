import { render } from 'preact';
import { Client } from '../../client/src/index.ts';
import { App } from './app.tsx';
import { Journal } from './journal.ts';
import { builtIn, readKinds } from './params.ts';
import type { KindForm } from './params.ts';
import { Session } from './session.ts';

const root = document.getElementById('app')!;
const week = 7 * 24 * 3600 * 1000;

let kinds: KindForm[] = builtIn;
let painting = false;

/** Draws at most once per frame, however much has changed. A hidden page has no frames, and needs none. */
function draw(): void {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    render(<App session={session} kinds={kinds} />, root);
  });
}

const journal = new Journal(globalThis.indexedDB);
void journal.forgetOlder(week);
const session = new Session(new Client(), journal, tabStorage(), draw);
session.connect();
draw();
setInterval(() => document.visibilityState === 'visible' && draw(), 500); // durations and the countdown

fetch('/v1/console.json')
  .then((r) => (r.ok ? r.json() : undefined))
  .then((doc) => {
    kinds = readKinds(doc);
    draw();
  })
  .catch(() => {}); // the built-in forms will do

function tabStorage(): Storage | undefined {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
}
