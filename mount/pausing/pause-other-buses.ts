/**
 * A ram image may have writers on several buses. A consistent copy pauses them all. Their own keepers do it (on an
 * orphaned bus the server), with the copy as the owner of the pause. So two copies at the same time, or a copy and a
 * user, do not resume each other's writers.
 */
import { FusetapError } from '../../drivers/errors.js';
import { isRunning, readStartTime } from '../../system/proc.js';
import { callEither } from '../control/call.js';
import { isConnectionLost } from '../control/http-client.js';
import { type BusPlace, resolveBus } from '../runtime/bus-place.js';
import { readBusRecords } from '../runtime/bus-record.js';

/** Resumes the paused writers. */
export type Resume = () => Promise<void>;

let copies = 0;

/** A name for a copy that this process makes. It identifies the process among all others, also dead ones. */
export function nameOfCopy(): string {
  copies += 1;
  return `${process.pid}:${readStartTime(process.pid)}:${copies}`;
}

/** Whether the process that made the copy of that name has died: then it will not resume the writers that it paused. */
export function isCopyDead(name: string): boolean {
  const [pid, startTime] = name.split(':');
  return !isRunning(Number(pid), startTime ?? '');
}

function isThere(pid: number | null): boolean {
  return pid !== null && readStartTime(pid) !== null;
}

/** how long a keeper may take to pause or resume a vbd: until it answers, our own writers wait too */
const ANSWER_LIMIT_MS = 10_000;

/** The writers to pause: those of all other buses that have the ram image, for the copy of that name. */
export interface OtherWriters {
  readonly runtimeDir: string;
  readonly ownBus: string;
  readonly memoryId: string;
  /** see nameOfCopy */
  readonly copy: string;
}

/** A vbd of another bus. */
interface Writer {
  readonly place: BusPlace;
  readonly vdev: string;
}

/**
 * Pauses all vbds on other buses that may write to a ram image.
 * @throws FusetapError BUSY if a vbd cannot be paused, because it uses passthrough and is open, or its keeper does not
 *   answer; none is paused then
 */
export async function pauseOtherWriters(wanted: OtherWriters, signal: AbortSignal): Promise<Resume> {
  const { runtimeDir, ownBus, memoryId, copy } = wanted;
  const asked: Writer[] = [];
  // errors are ignored: a bus that ended meanwhile has no paused vbd
  const resume = async (): Promise<void> => {
    await Promise.allSettled(asked.map((writer) => ask(writer, 'resume', copy)));
  };
  try {
    for (const { bus, keeperPid, serverPid, vbds } of readBusRecords(runtimeDir)) {
      // skip the record of a dead bus
      if (bus === ownBus || ![keeperPid, serverPid].some(isThere)) continue;
      for (const { vdev, mode, memory } of vbds) {
        if (memory !== memoryId || mode === 'r') continue;
        const writer = { place: await resolveBus(bus, runtimeDir), vdev };
        // before asking: a keeper that does not answer now may pause the vbd later
        asked.push(writer);
        await ask(writer, 'pause', copy, signal);
      }
    }
  } catch (error) {
    await resume();
    throw error;
  }
  return resume;
}

/** @throws FusetapError the keeper's error; BUSY if it does not answer */
async function ask(
  { place, vdev }: Writer,
  word: 'pause' | 'resume',
  copy: string,
  signal?: AbortSignal,
): Promise<void> {
  try {
    const query = { copy };
    await callEither(place, `POST /vbds/{vdev}/${word}`, { vdev, query, signal, timeoutMs: ANSWER_LIMIT_MS });
  } catch (error) {
    signal?.throwIfAborted();
    if (!isConnectionLost(error)) throw error;
    throw new FusetapError(
      'BUSY',
      `${vdev} on bus ${place.name} may write to these bytes, and its bus does not answer`,
      {
        hint: `fusetap log --bus ${place.name}`,
        holders: [{ bus: place.name, vdev }],
        cause: error,
      },
    );
  }
}
