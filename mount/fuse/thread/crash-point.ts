/**
 * Places where tests kill a server, to prove that it may die at any moment. A test defines the hook in a module that
 * Node loads first (test/survival/crash-hook.ts). An installed fusetap has no such module, so there is nothing to call.
 */

/**
 * load: the threads load · start: they may begin · read: a request was read · io: its work is about to begin ·
 * reply: its answer (for OPEN also its handle) is ready · replied: the kernel has the answer
 */
export type CrashStep = 'load' | 'start' | 'read' | 'io' | 'reply' | 'replied';

/** Called at each step. `opcode`: 0 if there is no request. */
export type CrashPoint = (step: CrashStep, opcode: number) => void;

/** The key of the hook on globalThis, in each thread. */
const CRASH_POINT = Symbol.for('fusetap.crash-point');

/** Null, except in servers of such a test. */
export const crashPoint: CrashPoint | null =
  (globalThis as { readonly [CRASH_POINT]?: CrashPoint })[CRASH_POINT] ?? null;
