/**
 * Kills a server at a chosen step. Node loads this before the code of the server, in each of its threads (see
 * crashes.ts).
 *
 *      FUSETAP_TEST_CRASH=DIRECTORY     with files STEP-OPCODE-ANYTHING in it
 *
 * A server that reaches the step with a request of that opcode removes one of the files and kills itself. So the files
 * decide when servers die, and how often. If the name contains `throw`, the server throws an error instead; if it
 * contains `spin`, it loops for ever. It kills itself by SIGKILL, as others would; with `crash` by another signal, as a
 * mistake in its code would.
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
  // SIGVTALRM ends a process, and writes no core
  else process.kill(process.pid, token.includes('crash') ? 'SIGVTALRM' : 'SIGKILL');
};

// crash-point.ts looks for the symbol when it is loaded, so this file must not import it
Object.assign(globalThis, { [Symbol.for('fusetap.crash-point')]: crash });
