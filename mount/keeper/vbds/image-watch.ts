/**
 * What has become of an image since it was attached: whether its file system answers, and whether somebody else changed it
 * (coherence rule 2). Locks keep out who asks for locks; what a plain `dd` did is found afterwards.
 *
 *      once a second, where file systems answer from memory:  fstat of our own descriptor ──┐
 *      ls, show, attach, detach:  a process stats path and descriptor ──► no answer in time ┼─► what is known is shown
 *                                                                    └──► an answer ────────┴─► judged
 *
 * Nobody waits for an image for longer than LIMIT_MS, and there is never more than one look at an image under way.
 *
 * Judged by the modification time (the change time moves with chmod, rename and link too, which are no harm). The time is
 * compared for equality with the one that was seen last: whatever clock made it, it moves with each write. Where it has
 * moved and this vbd wrote meanwhile, or tried to, that was our own doing. Where nothing was written through the vbd since,
 * somebody else did it, and that stays true however the vbd is written to afterwards.
 */
import { type BigIntStats, fstat } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { named } from '../../../drivers/quote.js';
import { answersFromMemory, deviceName, locate, readBlockSize, readMounts } from '../../../system/proc.js';
import { type SideShell, shellWord } from '../../../system/side-shell.js';
import { within } from '../../../system/within.js';
import type { ImageState } from '../../control/interface.js';
import type { OpenedImage } from '../../images/open-image.js';
import type { Ledger } from '../../ledger/ledger.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { readBusRecords } from '../../runtime/bus-record.js';
import type { Vbd } from './vbd.js';
import { filesOf } from './vbd-files.js';
import type { VbdTable } from './vbd-table.js';

const fstatAsync = promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>;

/** a file system that has not answered by then is taken for one that hangs */
const LIMIT_MS = 1_500;
/** one that has not answered by then is not waited for by what has to write to it */
const PATIENCE_MS = 8_000;
const LOOK_EVERY_MS = 1_000;

/** What is known of an image. */
interface Known {
  modifiedMs: number;
  /** how much the vbd had written, or tried to, before that time was read */
  writes: number;
  /** somebody else has written to it */
  isWritten: boolean;
  /** another size, or its path leads elsewhere */
  isReplaced: boolean;
  state: ImageState;
  /** the look that is under way, and since when */
  looking: Promise<void> | null;
  sinceMs: number;
}

/** What is looked at of a bus. */
export interface WatchedBus {
  readonly place: BusPlace;
  readonly vbds: VbdTable;
  readonly ledger: Ledger;
}

export interface ImageReport {
  readonly imageState: ImageState;
  readonly changedOutside: boolean;
}

export class ImageWatch {
  readonly #shell: SideShell;
  readonly #known = new WeakMap<OpenedImage, Known>();

  constructor(shell: SideShell) {
    this.#shell = shell;
  }

  /** Looks at the images of a bus once a second, until the process ends. */
  begin(bus: WatchedBus): void {
    setInterval(() => {
      for (const vbd of bus.vbds.all()) void this.#glance(bus, vbd).catch(() => {});
    }, LOOK_EVERY_MS).unref();
  }

  /** What there is to tell of a vbd's image: looked up, or where it does not answer soon, as far as it is known. */
  async report(bus: WatchedBus, vbd: Vbd, limitMs = LIMIT_MS): Promise<ImageReport> {
    const { image } = vbd.source;
    if (image === null) return { imageState: null, changedOutside: false };
    const known = this.#of(bus, vbd, image);
    const deadlineMs = performance.now() + limitMs;
    // one that is under way may have seen what was before
    if (known.looking !== null) await awaitUntil(known.looking, known.sinceMs + limitMs);
    if (known.looking === null) {
      known.sinceMs = performance.now();
      known.looking = this.#look(bus, vbd, image, known).finally(() => {
        known.looking = null;
      });
      await awaitUntil(known.looking, deadlineMs);
    }
    const imageState = known.looking === null ? known.state : 'not-answering';
    return { imageState, changedOutside: known.isWritten || known.isReplaced };
  }

  /** @throws FusetapError BUSY where the file system of the image does not answer; not asked where it answers from memory */
  async mustAnswer(bus: WatchedBus, vbd: Vbd): Promise<void> {
    const { vdev } = vbd;
    const { image } = vbd.source;
    if (image === null || answersFromMemory(image.fileSystem)) return;
    const { imageState } = await this.report(bus, vbd, PATIENCE_MS);
    if (imageState !== 'not-answering') return;
    const mount = locate(await readMounts('self'), image.realPath)?.mountpoint ?? '/';
    throw new FusetapError('BUSY', `the disk of ${vdev} does not answer: ${named(image.path)} on ${named(mount)}`, {
      hint: `wait until it does, or fusetap detach --force --bus ${bus.place.name} ${vdev}`,
    });
  }

  /**
   * Waits for work that a vbd's image has to answer for; the work itself goes on.
   * @throws FusetapError BUSY when the image does not answer; what the work throws
   */
  async whileAnswering<Result>(bus: WatchedBus, vbd: Vbd, work: Promise<Result>): Promise<Result> {
    const over = new AbortController();
    const watch = async (): Promise<never> => {
      for (;;) {
        await delay(LOOK_EVERY_MS, undefined, { signal: over.signal });
        await this.mustAnswer(bus, vbd);
      }
    };
    const watching = watch();
    watching.catch(() => {});
    work.catch(() => {});
    return await Promise.race([work, watching]).finally(() => over.abort());
  }

  #of(bus: WatchedBus, vbd: Vbd, image: OpenedImage): Known {
    const known = this.#known.get(image);
    if (known !== undefined) return known;
    const first = { modifiedMs: image.modifiedMs, writes: writesOf(bus, vbd), isWritten: false, isReplaced: false };
    const fresh: Known = { ...first, state: null, looking: null, sinceMs: 0 };
    this.#known.set(image, fresh);
    return fresh;
  }

  async #look(bus: WatchedBus, vbd: Vbd, image: OpenedImage, known: Known): Promise<void> {
    const writes = writesOf(bus, vbd);
    const answer = await this.#shell.run(
      `${statOf(image.path)}; printf '|'; ${statOf(`/proc/${process.pid}/fd/${image.fd}`)}`,
    );
    // detached while it was looked at: its descriptor is closed, and may be another's
    if (answer === null || !bus.vbds.has(vbd) || vbd.source.image !== image) return;
    const [path, file] = answer.split('|').map(parseStat);
    if (path === undefined || file === undefined) return;
    if (typeof file === 'string') {
      known.state = 'gone';
      return;
    }
    known.state = null;
    const sizeBytes = image.kind === 'block' ? readBlockSize(image.rdev ?? '') : file.sizeBytes;
    known.isReplaced = isReplaced(image, path) || (sizeBytes !== null && sizeBytes !== image.sizeBytes);
    await judge({ bus, vbd, image }, known, { modifiedMs: file.modifiedMs, writes });
  }

  /** The cheap look: no file system is waited for that could hang. */
  async #glance(bus: WatchedBus, vbd: Vbd): Promise<void> {
    const { image } = vbd.source;
    if (image === null || image.kind === 'block' || !answersFromMemory(image.fileSystem)) return;
    const known = this.#of(bus, vbd, image);
    if (known.looking !== null) return;
    const writes = writesOf(bus, vbd);
    const { mtimeNs } = await fstatAsync(image.fd, { bigint: true });
    if (bus.vbds.has(vbd) && vbd.source.image === image) {
      await judge({ bus, vbd, image }, known, { modifiedMs: Number(mtimeNs) / 1e6, writes });
    }
  }
}

/** Waits for some work until a time. */
async function awaitUntil(work: Promise<void>, deadlineMs: number): Promise<void> {
  await within(work, Math.max(0, deadlineMs - performance.now()), undefined);
}

/** How often the vbd has been written to, or was tried to be. */
function writesOf({ ledger }: WatchedBus, vbd: Vbd): number {
  return filesOf(vbd).reduce((sum, { ledgerIndex }) => sum + ledger.writes(ledgerIndex), 0);
}

type Seen = Pick<Known, 'modifiedMs' | 'writes'>;

interface Watched {
  readonly bus: WatchedBus;
  readonly vbd: Vbd;
  readonly image: OpenedImage;
}

async function judge({ bus, vbd, image }: Watched, known: Known, seen: Seen): Promise<void> {
  const isMoved = seen.modifiedMs !== known.modifiedMs;
  if (isMoved && writesOf(bus, vbd) === known.writes) {
    // a write that is under way moves the time before it is counted: the next look knows more
    if (bus.ledger.work().length > 0) return;
    if (canJudge(bus, vbd, image)) known.isWritten = true;
  }
  known.modifiedMs = seen.modifiedMs;
  known.writes = seen.writes;
}

/** Whether nobody but this vbd may write to the image, and what it writes is counted. */
function canJudge(bus: WatchedBus, vbd: Vbd, image: OpenedImage): boolean {
  const isCounted = image.kind === 'file' && (vbd.backingId === null || vbd.mode === 'r');
  return isCounted && answersFromMemory(image.fileSystem) && !hasOtherWriter(bus, vbd, image);
}

/** Vbds of mode `w!` may write beside this one. */
function hasOtherWriter({ place }: WatchedBus, vbd: Vbd, { dev, ino }: OpenedImage): boolean {
  const identity = `${dev}:${ino}`;
  return readBusRecords(place.runtimeDir).some(({ bus, vbds }) =>
    vbds.some((other) => {
      const isThis = bus === place.name && other.vdev === vbd.vdev;
      return other.identity === identity && other.mode !== 'r' && !isThis;
    }),
  );
}

interface Stat {
  readonly dev: string;
  readonly ino: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

/** A command that prints a file's stat(2), or after `!` the text of the error. */
function statOf(path: string): string {
  const ask = `stat -L $fresh -c '%d %i %s %y' -- ${shellWord(path)} 2>&1`;
  return `s=$(${ask}) && printf '%s' "$s" || printf '!%s' "\${s##*: }"`;
}

/** @returns the text of the error where it is one; undefined where stat(1) answered what nobody expected */
function parseStat(text: string): Stat | string | undefined {
  if (text.startsWith('!')) return text.slice(1);
  const [, dev, ino, size, time, fraction = ''] = STAT.exec(text) ?? [];
  if (dev === undefined || ino === undefined || time === undefined) return undefined;
  const seconds = BigInt(Date.parse(`${time.replace(' ', 'T')}Z`) / 1000);
  const modifiedNs = seconds * 1_000_000_000n + BigInt(fraction.padEnd(9, '0').slice(0, 9));
  return { dev: deviceName(BigInt(dev)), ino, sizeBytes: Number(size), modifiedMs: Number(modifiedNs) / 1e6 };
}
const STAT = /^(\d+) (\d+) (\d+) (\d+-\d+-\d+ \d+:\d+:\d+)\.?(\d*)/;

function isReplaced(image: OpenedImage, path: Stat | string): boolean {
  if (typeof path === 'string') return path === 'No such file or directory' || path === 'Not a directory';
  return path.dev !== image.dev || path.ino !== image.ino;
}
