/**
 * All checks of `fusetap doctor`, in the order in which a user should fix problems.
 */
import { runtimeDir } from '../runtime/bus-place.js';
import { type Check, type Finding, lacking } from './check.js';
import { lookAtDevice } from './device.js';
import { lookAtFuseProgram, lookAtLibfuse, lookAtLoop, xenChecks } from './extras.js';
import { lookAtKernel, lookAtPassthrough, lookAtResend } from './kernel.js';
import { lookAtIoFlusher, lookAtLocking, lookAtRamLimit } from './memory.js';
import { lookAtAllowOther, lookAtHelper, lookAtMounting } from './mounting.js';
import { findDeadBuses, lookAtRuntimeDir } from './runtime.js';

export interface CheckResult extends Finding {
  readonly name: string;
  /** no image can be attached without it */
  readonly needed: boolean;
}

export interface Examination {
  /** an image can be attached on this machine */
  readonly ok: boolean;
  readonly checks: CheckResult[];
}

/** Makes all checks. Changes nothing and asks no bus, because a dead bus would not answer. */
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
    ...xenChecks(),
    ...(await deadBuses(env, uid)),
  ];
  const results: CheckResult[] = [];
  for (const check of checks) results.push({ name: check.name, needed: check.needed, ...(await lookSafely(check)) });
  return { ok: results.every(({ ok, needed }) => ok || !needed), checks: results };
}

/** Makes a check. If it throws, that is a finding too. */
async function lookSafely({ look }: Check): Promise<Finding> {
  try {
    return await look();
  } catch (error) {
    return lacking(`the check failed: ${error instanceof Error ? error.message : String(error)}`, null);
  }
}

async function deadBuses(env: NodeJS.ProcessEnv, uid: number): Promise<Check[]> {
  try {
    return await findDeadBuses(runtimeDir(env, uid));
  } catch {
    // the check of the runtime directory reports the reason
    return [];
  }
}
