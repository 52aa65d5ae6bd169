/**
 * A ram image may have writers on several buses; a consistent copy holds them all. Those of other buses are held by
 * their keepers (an orphaned one by its server), in the name of the one who copies: so that two copies at once, and a user who pauses and resumes, do
 * not let each other's writers go.
 */
import { readStartTime } from '../../system/proc.js';
import { readBusRecords } from './bus-record.js';
import { askBus, isNotRunning } from './http-client.js';
import type { VbdInfo } from './interface.js';
import { resolveBus } from './runtime-dir.js';

/** Lets what was held go on. */
export type LetGo = () => Promise<void>;

let copies = 0;

/** A name for one copy that this process makes: it tells the process from all others, dead ones too. */
export function nameOfCopy(): string {
  copies += 1;
  return `${process.pid}:${readStartTime(process.pid)}:${copies}`;
}

/** Whether the process that makes a copy of that name has died: then nobody will let go what it had held. */
export function isCopyDead(name: string): boolean {
  const [pid, startTime] = name.split(':');
  return readStartTime(Number(pid)) !== startTime;
}

function isRunning(pid: number | null): boolean {
  return pid !== null && readStartTime(pid) !== null;
}

/**
 * Holds the I/O of all vbds on other buses that may write to a memory.
 * @param copy the one they are held for; see nameOfCopy
 * @throws FusetapError BUSY where one cannot be held, because it is passed through and open; nothing is held then
 */
export async function holdOtherWriters(
  runtimeDir: string,
  ownBus: string,
  memoryId: string,
  copy: string,
): Promise<LetGo> {
  const held: { bus: string; vdev: string }[] = [];
  const ask = async (bus: string, vdev: string, word: 'pause' | 'resume'): Promise<void> => {
    const place = await resolveBus(bus, runtimeDir);
    const path = `/vbds/${encodeURIComponent(vdev)}/${word}?copy=${encodeURIComponent(copy)}`;
    const request = { method: 'POST', path } as const;
    await askBus<VbdInfo>(place, request).catch((error: unknown) => {
      if (!isNotRunning(error)) throw error;
      // its keeper died: the server does it
      return askBus<VbdInfo>(place, { ...request, socket: 'server.sock' });
    });
  };
  const letGo = async (): Promise<void> => {
    // a bus that ended meanwhile holds nothing
    for (const { bus, vdev } of held) await ask(bus, vdev, 'resume').catch(() => {});
  };
  try {
    for (const { bus, keeperPid, serverPid, vbds } of readBusRecords(runtimeDir)) {
      // what a dead bus left behind writes nothing
      if (bus === ownBus || ![keeperPid, serverPid].some(isRunning)) continue;
      for (const { vdev, mode, memory } of vbds) {
        if (memory !== memoryId || mode === 'r') continue;
        await ask(bus, vdev, 'pause');
        held.push({ bus, vdev });
      }
    }
  } catch (error) {
    await letGo();
    throw error;
  }
  return letGo;
}
