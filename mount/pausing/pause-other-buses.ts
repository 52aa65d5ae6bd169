/**
 * A ram image may have writers on several buses. A consistent copy pauses them all. Their own keepers do it (on an orphaned bus
 * the server), in the name of the copy: so two copies at once, and a user who pauses and resumes, do not resume each other's
 * writers.
 */
import { FusetapError } from '../../drivers/errors.js';
import { isRunning, readStartTime } from '../../system/proc.js';
import { callEither } from '../control/call.js';
import { isConnectionLost } from '../control/http-client.js';
import { type BusPlace, resolveBus } from '../runtime/bus-place.js';
import { readBusRecords } from '../runtime/bus-record.js';

/** Resumes what was paused. */
export type Resume = () => Promise<void>;

let copies = 0;

/** A name for one copy that this process makes: it tells the process from all others, dead ones too. */
export function nameOfCopy(): string {
  copies += 1;
  return `${process.pid}:${readStartTime(process.pid)}:${copies}`;
}

/** Whether the process that makes a copy of that name has died: then nobody else will resume what it had paused. */
export function isCopyDead(name: string): boolean {
  const [pid, startTime] = name.split(':');
  return !isRunning(Number(pid), startTime ?? '');
}

function isThere(pid: number | null): boolean {
  return pid !== null && readStartTime(pid) !== null;
}

/** for how long a keeper may take to pause a vbd, or to resume it: while it does not answer, our own writers wait as well */
const ANSWER_LIMIT_MS = 10_000;

/** Which writers are paused: those of all buses but one, to the memory, for a copy of that name. */
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
 * Pauses all vbds on other buses that may write to a memory.
 * @throws FusetapError BUSY if one cannot be paused, because it is passed through and open, or its keeper does not answer; none
 *   is paused then
 */
export async function pauseOtherWriters(wanted: OtherWriters, signal: AbortSignal): Promise<Resume> {
  const { runtimeDir, ownBus, memoryId, copy } = wanted;
  const asked: Writer[] = [];
  // a bus that ended meanwhile has paused nothing
  const resume = async (): Promise<void> => {
    await Promise.allSettled(asked.map((writer) => ask(writer, 'resume', copy)));
  };
  try {
    for (const { bus, keeperPid, serverPid, vbds } of readBusRecords(runtimeDir)) {
      // what a dead bus left behind writes nothing
      if (bus === ownBus || ![keeperPid, serverPid].some(isThere)) continue;
      for (const { vdev, mode, memory } of vbds) {
        if (memory !== memoryId || mode === 'r') continue;
        const writer = { place: await resolveBus(bus, runtimeDir), vdev };
        // first: a keeper that does not answer now may pause it later
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

/** @throws FusetapError what the keeper answers; BUSY where it does not */
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
