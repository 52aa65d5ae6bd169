/** Which capabilities(7) this process has. */
import { readFileSync } from 'node:fs';
import { isInUserNamespace } from './proc.js';

export const CAP_IPC_LOCK = 14;
export const CAP_SYS_ADMIN = 21;
export const CAP_SYS_RESOURCE = 24;

/** Whether a capability is effective in this process. */
export function hasCapability(capability: number, status: string = readFileSync('/proc/self/status', 'utf8')): boolean {
  const effective = /^CapEff:\s+([0-9a-f]+)$/m.exec(status)?.[1] ?? '0';
  return ((BigInt(`0x${effective}`) >> BigInt(capability)) & 1n) === 1n;
}

/** Whether the capability is valid for the whole machine: root in a user namespace has all of them only in there. */
export function isPrivileged(capability: number): boolean {
  return hasCapability(capability) && !isInUserNamespace();
}
