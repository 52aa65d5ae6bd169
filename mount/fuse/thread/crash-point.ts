/**
 * Places where a test has a server die, to prove that no moment is a bad one. What is done there is the test's own: a module
 * that it has Node load before ours (test/survival/crash-hook.ts). Nothing that is installed has such a module, so there is
 * nothing to call.
 */

/**
 * load: the threads load · start: told to begin · read: a request was read · io: it is about to be worked on ·
 * reply: its answer (for OPEN also its handle) is made · replied: the kernel has the answer
 */
export type CrashStep = 'load' | 'start' | 'read' | 'io' | 'reply' | 'replied';

/** Called at each step. `opcode`: 0 where there is no request. */
export type CrashPoint = (step: CrashStep, opcode: number) => void;

/** What a test's module leaves on globalThis, in each thread. */
const CRASH_POINT = Symbol.for('fusetap.crash-point');

/** Null in all servers but those of such a test. */
export const crashPoint: CrashPoint | null =
  (globalThis as { readonly [CRASH_POINT]?: CrashPoint })[CRASH_POINT] ?? null;
