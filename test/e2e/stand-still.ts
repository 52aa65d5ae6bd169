/** Stops processes, and waits until they stand still. */
import { readdirSync, readFileSync } from 'node:fs';
import { statFields } from '../../system/proc.js';
import { eventually } from './command.js';

const LIMIT_MS = 60_000;
const STILL = ['T', 't', 'Z', 'X'];

/**
 * SIGSTOP, until no thread runs any more. kill(2) returns when one thread has the signal: before that thread gets a processor,
 * the others go on, and may still answer a request.
 */
export async function standStill(pid: number | null | undefined): Promise<void> {
  // 0 would be the processes of this test
  if (!pid) throw new Error('there is no process to stop');
  process.kill(pid, 'SIGSTOP');
  await eventually(
    `process ${pid} stands still`,
    LIMIT_MS,
    () => statesOf(pid).every((state) => STILL.includes(state)),
    1,
  );
}

function statesOf(pid: number): string[] {
  const tasks = `/proc/${pid}/task`;
  return readdirSync(tasks).map((tid) => {
    try {
      return statFields(readFileSync(`${tasks}/${tid}/stat`, 'utf8'))[0] ?? '';
    } catch {
      // the thread has ended
      return 'X';
    }
  });
}
