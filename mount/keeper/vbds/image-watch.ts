/**
 * Watches images after attach: whether their file system answers, and whether somebody else has changed them (coherence
 * rule 2). Locks stop only programs that ask for locks; a write by a plain `dd` is found afterwards.
 *
 *      once a second, if the file system answers from memory: fstat of our own descriptor ──┐
 *      ls, show, attach, detach:  a process stats path and descriptor ──► no answer in time ┼─► the last known state
 *                                                                    └──► an answer ────────┴─► judged
 *
 *      GET /counters: the same look, at most once a minute, and nobody waits for it ──────► the last known state
 *
 * Nobody waits for an image longer than LIMIT_MS, and never more than one look at an image is under way.
 *
 * The modification time is the evidence. (The change time also moves with chmod, rename and link, which do no harm.) It
 * is compared for equality with the last one seen: whatever clock it comes from, it moves with each write. If it has
 * moved, and this vbd wrote meanwhile or tried to, the vbd moved it. If nothing was written through the vbd, somebody
 * else wrote to the image, and that stays true even if the vbd writes later.
 *
 * Another size is a change, too. But some formats make their file larger when they are written: a larger size is judged as
 * the time is, and what the vbd has added is the known size from then on.
 */
import { type BigIntStats, fstat, fstatSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { named } from '../../../drivers/quote.js';
import { answersFromMemory, deviceName, locate, readBlockSize, readMounts } from '../../../system/proc.js';
import { type SideShell, shellWord } from '../../../system/side-shell.js';
import { within } from '../../../system/within.js';
import type { ImageState } from '../../control/interface.js';
import { inMs, type OpenedImage } from '../../images/open-image.js';
import type { Ledger } from '../../ledger/ledger.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { readBusRecords, uses } from '../../runtime/bus-record.js';
import { mustBeConnected } from './kept-disks.js';
import type { Vbd } from './vbd.js';
import { filesOf } from './vbd-files.js';
import type { VbdTable } from './vbd-table.js';

const fstatAsync = promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>;

/** a file system that has not answered after this time is reported as hanging */
const LIMIT_MS = 1_500;
/** if it has not answered after this time, commands that have to write to it are refused */
const PATIENCE_MS = 8_000;
const LOOK_EVERY_MS = 1_000;
/** how old the known state may get while somebody asks for counters */
const STATE_AGE_MS = 60_000;

/** What is known about an image. */
interface Known {
  modifiedMs: number;
  /** how often the vbd had written, or tried to, before that time was read */
  writes: number;
  /** somebody else has written to it */
  isWritten: boolean;
  /** its size is different, and not because the vbd made it larger */
  isResized: boolean;
  /** its path does not lead to it any more */
  isElsewhere: boolean;
  /** where it was moved; null if it was not */
  movedTo: string | null;
  /** it has no name any more */
  isDeleted: boolean;
  state: ImageState;
  /** the number of the last look: what an earlier one has seen is old */
  looks: number;
  /** the look that is under way; `sinceMs`: when the last one began */
  looking: Promise<void> | null;
  sinceMs: number;
}

/** The parts of a bus that the watch needs. */
export interface WatchedBus {
  readonly place: BusPlace;
  readonly vbds: VbdTable;
  readonly ledger: Ledger;
}

export interface ImageReport {
  readonly imageState: ImageState;
  readonly changedOutside: boolean;
  readonly writtenOutside: boolean;
  readonly movedTo: string | null;
  readonly deleted: boolean;
}

const UNCHANGED: ImageReport = {
  ...{ imageState: null, changedOutside: false, writtenOutside: false, movedTo: null, deleted: false },
};

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

  /** The state of a vbd's image: looked up now, or if it does not answer soon, the last known state. */
  async report(bus: WatchedBus, vbd: Vbd, limitMs = LIMIT_MS): Promise<ImageReport> {
    const { image } = vbd.source;
    if (image === null) return UNCHANGED;
    const known = this.#of(bus, vbd, image);
    const deadlineMs = performance.now() + limitMs;
    // a look that is under way may have seen an older state
    if (known.looking !== null) await awaitUntil(known.looking, known.sinceMs + limitMs);
    if (known.looking === null) await awaitUntil(this.#beginLook(bus, vbd, image, known), deadlineMs);
    const imageState = known.looking === null ? known.state : 'not-answering';
    const { movedTo, isDeleted: deleted } = known;
    const writtenOutside = known.isWritten || known.isResized;
    return { imageState, changedOutside: writtenOutside || known.isElsewhere, writtenOutside, movedTo, deleted };
  }

  /** The last known state of a vbd's image, at once. If that is old, a look begins, for those who ask later. */
  lastKnown(bus: WatchedBus, vbd: Vbd): ImageState {
    const { image } = vbd.source;
    if (image === null) return null;
    const known = this.#of(bus, vbd, image);
    if (known.looking === null && performance.now() - known.sinceMs > STATE_AGE_MS) {
      this.#beginLook(bus, vbd, image, known).catch(() => {});
    }
    const isLate = known.looking !== null && performance.now() - known.sinceMs > LIMIT_MS;
    return isLate ? 'not-answering' : known.state;
  }

  /** @throws FusetapError BUSY if the image's file system does not answer; one that answers from memory is not asked */
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
   * Waits for work that needs the vbd's image. When the image does not answer, it stops waiting; the work goes on.
   * @throws FusetapError BUSY if the image does not answer; errors of the work
   */
  async whileAnswering<Result>(bus: WatchedBus, vbd: Vbd, work: Promise<Result>): Promise<Result> {
    const over = new AbortController();
    const watch = async (): Promise<never> => {
      for (;;) {
        await delay(LOOK_EVERY_MS, undefined, { signal: over.signal });
        mustBeConnected(vbd);
        await this.mustAnswer(bus, vbd);
      }
    };
    const watching = watch();
    watching.catch(() => {});
    work.catch(() => {});
    return await Promise.race([work, watching]).finally(() => over.abort());
  }

  /** Takes the image as it is now for the vbd's own: changes so far are not those of somebody else. */
  async accept(bus: WatchedBus, vbd: Vbd, image: OpenedImage): Promise<void> {
    const known = this.#of(bus, vbd, image);
    // a look that is under way has seen the old state
    if (known.looking !== null) await awaitUntil(known.looking, performance.now() + LIMIT_MS);
    const writes = writesOf(bus, vbd);
    const { mtimeNs, size } = await fstatAsync(image.fd, { bigint: true });
    known.modifiedMs = inMs(mtimeNs);
    known.writes = writes;
    known.isWritten = false;
    known.isResized = false;
    // it was measured earlier, and may have grown since
    if (grows(vbd, image)) image.sizeBytes = Number(size);
  }

  /** Begins to watch the image that a swap has given to a vbd. Call it before the vbd is resumed. */
  async begun(bus: WatchedBus, vbd: Vbd): Promise<void> {
    const { image } = vbd.source;
    if (image === null) return;
    this.#of(bus, vbd, image);
    // if the image is the same, the old disk may have written to it when it was closed
    if (answersFromMemory(image.fileSystem)) await this.accept(bus, vbd, image);
  }

  #of(bus: WatchedBus, vbd: Vbd, image: OpenedImage): Known {
    const known = this.#known.get(image);
    if (known !== undefined) return known;
    const first = { modifiedMs: image.modifiedMs, writes: writesOf(bus, vbd), isWritten: false };
    const unmoved = { isResized: false, isElsewhere: false, movedTo: null, isDeleted: false };
    const fresh: Known = {
      ...first,
      ...unmoved,
      state: null,
      looks: 0,
      looking: null,
      sinceMs: Number.NEGATIVE_INFINITY,
    };
    this.#known.set(image, fresh);
    return fresh;
  }

  #beginLook(bus: WatchedBus, vbd: Vbd, image: OpenedImage, known: Known): Promise<void> {
    known.sinceMs = performance.now();
    known.looking = this.#look(bus, vbd, image, known).finally(() => {
      known.looking = null;
    });
    return known.looking;
  }

  async #look(bus: WatchedBus, vbd: Vbd, image: OpenedImage, known: Known): Promise<void> {
    known.looks += 1;
    const writes = writesOf(bus, vbd);
    const answer = await this.#shell.run(
      `${statOf(image.path)}; printf '|'; ${statOf(`/proc/${process.pid}/fd/${image.fd}`)}`,
    );
    // if it was detached meanwhile, its descriptor is closed, and the number may belong to another file
    if (answer === null || !bus.vbds.has(vbd) || vbd.source.image !== image) return;
    const [path, file] = answer.split('|').map(parseStat);
    if (path === undefined || file === undefined) return;
    if (typeof file === 'string') {
      known.state = 'gone';
      return;
    }
    known.state = null;
    known.isElsewhere = leadsElsewhere(image, path);
    known.isDeleted = file.links === 0;
    known.movedTo = known.isElsewhere && !known.isDeleted ? currentPath(image.fd) : null;
    const sizeBytes = image.kind === 'block' ? readBlockSize(image.rdev ?? '') : file.sizeBytes;
    judge({ bus, vbd, image }, known, { modifiedMs: file.modifiedMs, sizeBytes, writes });
  }

  /** The cheap look, which all vbds get all the time: skips file systems that could hang. */
  async #glance(bus: WatchedBus, vbd: Vbd): Promise<void> {
    const { image } = vbd.source;
    if (image === null || image.kind === 'block' || !answersFromMemory(image.fileSystem)) return;
    const known = this.#of(bus, vbd, image);
    if (known.looking !== null) return;
    known.looks += 1;
    const { looks } = known;
    const writes = writesOf(bus, vbd);
    // a call in another thread takes 30 times as long; what is below an overlay may hang
    const isOverlay = image.fileSystem === 'overlay';
    const stats = isOverlay ? await fstatAsync(image.fd, { bigint: true }) : fstatSync(image.fd, { bigint: true });
    const { mtimeNs, size } = stats;
    if (bus.vbds.has(vbd) && vbd.source.image === image && known.looks === looks) {
      judge({ bus, vbd, image }, known, { modifiedMs: inMs(mtimeNs), sizeBytes: Number(size), writes });
    }
  }
}

/** Waits for the work, but not longer than until the deadline. */
async function awaitUntil(work: Promise<void>, deadlineMs: number): Promise<void> {
  await within(work, Math.max(0, deadlineMs - performance.now()), undefined);
}

/** How often the image may have been written through the vbd: what it only reads, as the base of a snapshot, never. */
function writesOf({ ledger }: WatchedBus, vbd: Vbd): number {
  const { image, files } = vbd.source;
  if ([...files.values()].some((file) => file.image === image && file.mode === 'r')) return 0;
  return filesOf(vbd).reduce((sum, { ledgerIndex }) => sum + ledger.writes(ledgerIndex), 0);
}

/** Whether writes of the vbd make the image larger. */
function grows({ source }: Vbd, image: OpenedImage): boolean {
  return [...source.files.values()].some((file) => file.image === image && file.grows);
}

type Seen = Pick<Known, 'modifiedMs' | 'writes'> & {
  /** null if it is not known */
  readonly sizeBytes: number | null;
};

interface Watched {
  readonly bus: WatchedBus;
  readonly vbd: Vbd;
  readonly image: OpenedImage;
}

function judge({ bus, vbd, image }: Watched, known: Known, { modifiedMs, sizeBytes, writes }: Seen): void {
  // a commit writes for no client
  const hasWritten = writesOf(bus, vbd) !== known.writes || vbd.remeasure !== undefined;
  const isMoved = modifiedMs !== known.modifiedMs;
  const hasOtherSize = sizeBytes !== null && sizeBytes !== image.sizeBytes;
  const mayHaveGrown = hasOtherSize && sizeBytes > image.sizeBytes && !known.isResized && grows(vbd, image);
  // a write that is under way changes time and size before it is counted: leave the decision to the next look
  const isOpen = !hasWritten && bus.ledger.work().length > 0;
  if (!(mayHaveGrown && (hasWritten || isOpen))) known.isResized = hasOtherSize;
  if (isOpen && (isMoved || mayHaveGrown)) return;
  if (mayHaveGrown && hasWritten) image.sizeBytes = sizeBytes;
  if (isMoved && !hasWritten && canJudge(bus, vbd, image)) known.isWritten = true;
  known.modifiedMs = modifiedMs;
  known.writes = writes;
}

/** Whether only this vbd may write to the image, and its writes are counted. */
function canJudge(bus: WatchedBus, vbd: Vbd, image: OpenedImage): boolean {
  const isCounted = image.kind === 'file' && (vbd.backingId === null || vbd.mode === 'r');
  return isCounted && answersFromMemory(image.fileSystem) && !hasOtherWriter(bus, vbd, image);
}

/** Other vbds of mode `w!` may write to the same image. */
function hasOtherWriter({ place }: WatchedBus, vbd: Vbd, { dev, ino }: OpenedImage): boolean {
  const identity = `${dev}:${ino}`;
  return readBusRecords(place.runtimeDir).some(({ bus, vbds }) =>
    vbds.some((other) => {
      const isThis = bus === place.name && other.vdev === vbd.vdev;
      return uses(other, identity) && other.mode !== 'r' && !isThis;
    }),
  );
}

/** The path by which the kernel knows an open file now; null if that name was removed. */
function currentPath(fd: number): string | null {
  const path = readlinkSync(`/proc/self/fd/${fd}`);
  return path.endsWith(' (deleted)') ? null : path;
}

interface Stat {
  /** how many names it has */
  readonly links: number;
  readonly dev: string;
  readonly ino: string;
  readonly sizeBytes: number;
  readonly modifiedMs: number;
}

/** A command that prints a file's stat(2), or after `!` the text of the error. */
function statOf(path: string): string {
  const ask = `stat -L $fresh -c '%h %d %i %s %y' -- ${shellWord(path)} 2>&1`;
  return `s=$(${ask}) && printf '%s' "$s" || printf '!%s' "\${s##*: }"`;
}

/** @returns the text of the error if it is one; undefined if the output of stat(1) cannot be parsed */
function parseStat(text: string): Stat | string | undefined {
  if (text.startsWith('!')) return text.slice(1);
  const [, links, dev, ino, size, time, fraction = ''] = STAT.exec(text) ?? [];
  if (dev === undefined || ino === undefined || time === undefined) return undefined;
  const seconds = BigInt(Date.parse(`${time.replace(' ', 'T')}Z`) / 1000);
  const modifiedNs = seconds * 1_000_000_000n + BigInt(fraction.padEnd(9, '0').slice(0, 9));
  const modifiedMs = Number(modifiedNs) / 1e6;
  return { links: Number(links), dev: deviceName(BigInt(dev)), ino, sizeBytes: Number(size), modifiedMs };
}
const STAT = /^(\d+) (\d+) (\d+) (\d+) (\d+-\d+-\d+ \d+:\d+:\d+)\.?(\d*)/;

/** Whether a path does not lead to the image any more. */
function leadsElsewhere(image: OpenedImage, path: Stat | string): boolean {
  if (typeof path === 'string') return path === 'No such file or directory' || path === 'Not a directory';
  return path.dev !== image.dev || path.ino !== image.ino;
}
