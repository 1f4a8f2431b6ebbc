import type { Step } from './order.ts';
import type { Task } from './task.ts';

/**
 * Goes through the events of a task from now on, as a loop; ends after the final one, or when the task is lost. An
 * event counts as had when the next one is asked for, or the loop is left.
 */
export async function* events(task: Task): AsyncGenerator<Step, void, undefined> {
  let arrive!: (got?: [Step, () => void]) => void;
  const next = () => new Promise<[Step, () => void] | undefined>((resolve) => (arrive = resolve));
  let had = () => {};
  let over = false;
  let arrival = next();
  const off = task.on('*', (step) => new Promise<void>((settle) => arrive([step, settle])));
  const end = () => arrive(void (over = true));
  void task.result.then(end, end);
  try {
    for (let got; !over && (got = await arrival); had()) {
      arrival = next(); // before the task may go on
      had = got[1];
      yield got[0];
    }
  } finally {
    off();
    had();
  }
}
