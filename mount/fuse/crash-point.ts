/**
 * Places where a test has a server die, to prove that no moment is a bad one. Without the environment variable there is
 * nothing to call.
 *
 *      FUSETAP_TEST_CRASH=DIRECTORY     with files STEP-OPCODE-ANYTHING in it
 *
 * A server that comes to the step with a request of that opcode kills itself, and one of the files goes with it: so
 * whoever puts them there says when, and how often. With `throw` in its name the server meets an error instead; with `spin`
 * it works for ever.
 */
import { readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';

/**
 * load: the threads load · start: told to begin · read: a request was read · io: it is about to be worked on ·
 * reply: its answer (for OPEN also its handle) is made · replied: the kernel has the answer
 */
export type CrashStep = 'load' | 'start' | 'read' | 'io' | 'reply' | 'replied';

/** Called at each step; null in all servers but those of such a test. `opcode`: 0 where there is no request. */
export const crashPoint: ((step: CrashStep, opcode: number) => void) | null = fromEnvironment();

function fromEnvironment(): typeof crashPoint {
  const directory = process.env.FUSETAP_TEST_CRASH;
  if (directory === undefined) return null;
  return (step, opcode) => {
    const token = readdirSync(directory).find((name) => name.startsWith(`${step}-${opcode}-`));
    if (token === undefined) return;
    unlinkSync(join(directory, token));
    if (token.includes('spin')) for (;;);
    if (token.includes('throw')) setImmediate(() => Promise.reject(new Error('thrown for a test')));
    else process.kill(process.pid, 'SIGKILL');
  };
}
