/**
 * Kills a server at a chosen step; loaded by Node before the code of the server, and in each of its threads (see crashes.ts).
 *
 *      FUSETAP_TEST_CRASH=DIRECTORY     with files STEP-OPCODE-ANYTHING in it
 *
 * A server that comes to the step with a request of that opcode kills itself, and one of the files goes with it: so
 * whoever puts them there says when, and how often. With `throw` in its name the server meets an error instead; with `spin`
 * it works for ever.
 */
import { readdirSync, unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { CrashPoint } from '../../mount/fuse/thread/crash-point.js';

const directory = process.env.FUSETAP_TEST_CRASH;

const crash: CrashPoint = (step, opcode) => {
  if (directory === undefined) return;
  const token = readdirSync(directory).find((name) => name.startsWith(`${step}-${opcode}-`));
  if (token === undefined) return;
  unlinkSync(join(directory, token));
  if (token.includes('spin')) for (;;);
  if (token.includes('throw')) setImmediate(() => Promise.reject(new Error('thrown for a test')));
  else process.kill(process.pid, 'SIGKILL');
};

// crash-point.ts looks for it when it is loaded, so that must not be loaded from here
Object.assign(globalThis, { [Symbol.for('fusetap.crash-point')]: crash });
