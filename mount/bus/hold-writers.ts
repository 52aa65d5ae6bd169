/**
 * A ram image may have writers on several buses; a consistent copy holds them all. Those of other buses are held by
 * their keepers.
 */
import { readBusRecords } from './bus-record.js';
import { askBus } from './http-client.js';
import type { VbdInfo } from './interface.js';
import { resolveBus } from './runtime-dir.js';

/** Lets what was held go on. */
export type LetGo = () => Promise<void>;

/**
 * Holds the I/O of all vbds on other buses that may write to a memory.
 * @throws FusetapError BUSY where one cannot be held, because it is passed through and open; nothing is held then
 */
export async function holdOtherWriters(runtimeDir: string, ownBus: string, memoryId: string): Promise<LetGo> {
  const held: { bus: string; vdev: string }[] = [];
  const ask = async (bus: string, vdev: string, word: 'pause' | 'resume'): Promise<void> => {
    const place = await resolveBus(bus, runtimeDir);
    await askBus<VbdInfo>(place, { method: 'POST', path: `/vbds/${encodeURIComponent(vdev)}/${word}` });
  };
  const letGo = async (): Promise<void> => {
    // a bus that ended meanwhile holds nothing
    for (const { bus, vdev } of held) await ask(bus, vdev, 'resume').catch(() => {});
  };
  try {
    for (const { bus, vbds } of readBusRecords(runtimeDir)) {
      if (bus === ownBus) continue;
      for (const { vdev, mode, memory, paused } of vbds) {
        if (memory !== memoryId || mode === 'r' || paused) continue;
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
