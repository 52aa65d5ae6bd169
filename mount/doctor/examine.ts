/**
 * All checks of `fusetap doctor`, in the order in which one would mend things.
 */
import { runtimeDir } from '../runtime/bus-place.js';
import { type Check, type Finding, lacking } from './check.js';
import { lookAtDevice } from './device.js';
import { lookAtFuseProgram, lookAtLibfuse, lookAtLoop } from './extras.js';
import { lookAtKernel, lookAtPassthrough, lookAtResend } from './kernel.js';
import { lookAtIoFlusher, lookAtLocking, lookAtRamLimit } from './memory.js';
import { lookAtAllowOther, lookAtHelper, lookAtMounting } from './mounting.js';
import { findDeadBuses, lookAtRuntimeDir } from './runtime.js';

export interface CheckResult extends Finding {
  readonly name: string;
  /** without it no image can be attached at all */
  readonly needed: boolean;
}

/** @param ok an image can be attached here */
export interface Examination {
  readonly ok: boolean;
  readonly checks: CheckResult[];
}

/** Looks at everything. Nothing is changed, and no bus is asked: a dead one would not answer. */
export async function examine(env: NodeJS.ProcessEnv, uid: number): Promise<Examination> {
  const checks: Check[] = [
    { name: 'fuse-device', needed: true, look: lookAtDevice },
    { name: 'kernel', needed: true, look: () => lookAtKernel() },
    { name: 'mount', needed: true, look: () => lookAtMounting() },
    { name: 'runtime-directory', needed: true, look: () => lookAtRuntimeDir(env, uid) },
    { name: 'crash-recovery', needed: false, look: () => lookAtResend() },
    { name: 'passthrough', needed: false, look: () => lookAtPassthrough() },
    { name: 'locked-memory', needed: false, look: () => lookAtLocking() },
    { name: 'ram-limit', needed: false, look: lookAtRamLimit },
    { name: 'io-flusher', needed: false, look: lookAtIoFlusher },
    { name: 'fusermount3', needed: false, look: () => lookAtHelper() },
    { name: 'allow-other', needed: false, look: () => lookAtAllowOther() },
    { name: 'loop-devices', needed: false, look: () => lookAtLoop() },
    { name: 'fuse-programs', needed: false, look: () => lookAtFuseProgram() },
    { name: 'libfuse2', needed: false, look: lookAtLibfuse },
    ...(await deadBuses(env, uid)),
  ];
  const results: CheckResult[] = [];
  for (const check of checks) results.push({ name: check.name, needed: check.needed, ...(await lookSafely(check)) });
  return { ok: results.every(({ ok, needed }) => ok || !needed), checks: results };
}

/** A check that fails is a finding too. */
async function lookSafely({ look }: Check): Promise<Finding> {
  try {
    return await look();
  } catch (error) {
    return lacking(`cannot be looked at: ${error instanceof Error ? error.message : String(error)}`, null);
  }
}

async function deadBuses(env: NodeJS.ProcessEnv, uid: number): Promise<Check[]> {
  try {
    return await findDeadBuses(runtimeDir(env, uid));
  } catch {
    // the check of the runtime directory says why
    return [];
  }
}
