/**
 * Whether somebody else changed an image while it was attached (coherence rule 2). Locks keep out who asks for locks;
 * what a plain `dd` did is found afterwards: by the size, by what the path leads to, and by the time of the last change,
 * where nobody but this vbd may have made it.
 *
 * Told by the modification time, not the change time: chmod, rename and link move that too, and are no harm to a disk.
 */
import { statfs } from 'node:fs/promises';
import type { BusParts } from './bus-parts.js';
import { readBusRecords } from './bus-record.js';
import { imageChanged, type OpenedImage, readModified } from './open-image.js';
import type { Vbd } from './vbd.js';

/** file systems whose times are another machine's: NFS, SMB, SMB 2, CIFS, 9P, Ceph, FUSE */
const FOREIGN_CLOCKS: ReadonlySet<number> = new Set([
  0x6969, 0x517b, 0xfe534d42, 0xff534d42, 0x01021997, 0x00c36400, 0x65735546,
]);

/** times in the ledger are cut to milliseconds */
const GRAIN_MS = 1;

export async function isChangedOutside(bus: BusParts, vbd: Vbd): Promise<boolean> {
  const { image } = vbd;
  if (image === null) return false;
  try {
    return (await imageChanged(image)) !== null || (await isWrittenOutside(bus, vbd, image));
  } catch (error) {
    // detached while it was looked at: its descriptor is closed
    if (!bus.vbds.has(vbd)) return false;
    throw error;
  }
}

async function isWrittenOutside(bus: BusParts, vbd: Vbd, image: OpenedImage): Promise<boolean> {
  if (image.kind === 'block' || (vbd.backingId !== null && vbd.mode !== 'r')) return false;
  const modifiedMs = await readModified(image);
  if (modifiedMs === image.modifiedMs || !isLater(bus, vbd, modifiedMs, image)) return false;
  // a write of ours that is under way moves the time before it is noted
  if (bus.ledger.work().length > 0 || hasOtherWriter(bus, vbd, image)) return false;
  return !FOREIGN_CLOCKS.has((await statfs(image.realPath)).type) && isLater(bus, vbd, modifiedMs, image);
}

/** Later than all that the vbd did to it; or set back to before it was attached. */
function isLater({ ledger }: BusParts, vbd: Vbd, modifiedMs: number, image: OpenedImage): boolean {
  const times = [vbd, ...(vbd.partitions ?? [])].map(({ ledgerIndex }) => ledger.changedMs(ledgerIndex));
  return modifiedMs > Math.max(...times) + GRAIN_MS || modifiedMs < image.modifiedMs;
}

/** Vbds of mode `w!` may write beside this one. */
function hasOtherWriter({ place }: BusParts, vbd: Vbd, { dev, ino }: OpenedImage): boolean {
  const identity = `${dev}:${ino}`;
  return readBusRecords(place.runtimeDir).some(({ bus, vbds }) =>
    vbds.some((other) => {
      const isThis = bus === place.name && other.vdev === vbd.vdev;
      return other.identity === identity && other.mode !== 'r' && !isThis;
    }),
  );
}
