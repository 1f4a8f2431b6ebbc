import { Client } from '../src/index.ts';
import type { Options, State, Task } from '../src/index.ts';
import { settled } from './world.ts';
import type { World } from './world.ts';

/** A client on its page; states and errors are kept as they come. */
export function clientOn(world: World, options: Options = {}) {
  const client = new Client({ ...options, platform: world.platform });
  const states: State[] = [];
  const restored: Task[] = [];
  const errors: unknown[] = [];
  client.on('state', (s) => states.push(s));
  client.on('task', (t) => restored.push(t));
  client.on('error', (e) => errors.push(e));
  return { client, states, restored, errors };
}

/** A client whose first socket has been welcomed, to its session where the page has stored one. */
export async function openOn(world: World, options: Options = {}) {
  const all = clientOn(world, options);
  all.client.connect();
  await settled();
  await world.socket.welcome({ resumed: world.storage.length > 0 });
  return all;
}

export const names = (states: State[]) => states.map((s) => s.name);
