/**
 * The names of the files of a bus: what the directories by-label, by-uuid, by-partlabel and by-partuuid show, and what
 * `fusetap ls --fs` tells. Runs on the event loop of the server, when somebody asks:
 *
 *      lookup, readdir ──► each disk: written since its last reading, or read more than a second ago?
 *                             ├─ no ──► its names are known
 *                             └─ yes ─► read it anew, all at the same time ──► wait for them, at most a second
 *
 * Writes cost nothing: the ledger counts them anyway. A disk that took longer than a second is not waited for any more
 * until a reading is quick again: it has the names of its last reading, and is not read again until that reading ends. A
 * disk that is paused is not read.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../../drivers/disk.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { Lanes } from '../../system/lanes.js';
import { within } from '../../system/within.js';
import type { Ledger } from '../ledger/ledger.js';
import { findSlot } from '../slots/slots.js';
import { statAtOnce } from '../transport/below.js';
import type { NameKind } from '../transport/by-name.js';
import type { IoGate } from '../transport/io-gate.js';
import type { NamesOfFile } from '../transport/transport.js';
import type { Tree, TreeNode } from '../transport/tree.js';
import { type Facts, type Name, NO_FACTS, NotWanted, readFacts } from './facts.js';

/**
 * Names may be as old as this if a change cannot be seen: by another program, or through another vbd of the same file. With
 * many disks, reading them all takes longer than that: then they may be ten times as old as it takes.
 */
const MAX_AGE_MS = 1_000;
const AGE_FACTOR = 10;
/** how long a request for names waits for all disks together */
const LIMIT_MS = 1_000;
/** the times of files are those of the kernel's last tick: a write soon after a reading may have the same time */
const TICK_MS = 20;
/**
 * How many reads of superblocks run at a time. Reads of files take threads of Node's pool, of which a server has four. A disk
 * that hangs keeps its thread, so one must always be left for the requests of clients.
 */
const LANES = 3;
/** after so many disks requests of clients get their turn */
const DISKS_PER_TURN = 16;

export interface NamesContext {
  readonly tree: Tree;
  readonly ledger: Ledger;
  /** counts the readings as I/O of the file, and knows which files are paused */
  readonly gate: IoGate;
}

/** What a reading saw: another one is needed if this differs. */
interface Stamp {
  /** of the disk and its partitions */
  readonly writes: number;
  /** of the file below, where others may write to it; else null */
  readonly mtimeMs: number | null;
  /** files of partitions of it are shown */
  readonly hasPartitions: boolean;
}

/** What the last reading found. */
interface Known {
  readonly facts: Facts;
  readonly stamp: Stamp;
  readonly atMs: number;
  readonly atTimeMs: number;
  /** the disk could not be read: it may have names */
  readonly hasFailed: boolean;
}

/** The readings of a disk. A swap or a resize makes another disk. */
interface Reading {
  known: Known | null;
  running: Promise<void> | null;
  /** its last reading took too long, or has not ended: nobody waits for it */
  isSlow: boolean;
}

/** The links of each kind, as of so many readings and changes of the tree. */
interface Links {
  readonly readings: number;
  readonly changes: number;
  readonly byKind: Map<NameKind, ReadonlyMap<string, TreeNode>>;
}

export interface NameLink {
  readonly name: string;
  readonly node: TreeNode;
}

export class DiskNames {
  readonly #context: NamesContext;
  readonly #readings = new WeakMap<Disk, Reading>();
  readonly #lanes = new Lanes(LANES);
  /** when the reads that are under way began */
  readonly #began = new Set<{ readonly atMs: number }>();
  #maxAgeMs = MAX_AGE_MS;
  /** the refresh that begins in the next turn of the event loop: all who ask until then share it */
  #next: Promise<void> | null = null;
  /** counts the readings that have ended */
  #ended = 0;
  #kept: Links = { readings: 0, changes: 0, byKind: new Map() };

  constructor(context: NamesContext) {
    this.#context = context;
  }

  /** The file of a link. */
  async find(kind: NameKind, name: string): Promise<TreeNode | undefined> {
    await this.#refresh();
    return this.#links(kind).get(name);
  }

  /** The links after a cursor, which is the node id of a vbd; ordered by it. */
  async linksAfter(kind: NameKind, cursor: number): Promise<NameLink[]> {
    await this.#refresh();
    const links = [...this.#links(kind)].map(([name, node]) => ({ name, node }));
    return links
      .filter(({ node }) => node.file.nodeId > cursor)
      .sort((a, b) => a.node.file.nodeId - b.node.file.nodeId);
  }

  /** The names of all files. */
  async all(): Promise<NamesOfFile[]> {
    await this.#refresh();
    const stamps = this.#stamps();
    return this.#context.tree.after(0).map((node) => {
      const { type, usage, label } = this.#factsOf(node);
      const texts = { label: label?.text ?? null, labelEncoded: label?.encoded ?? null };
      const text = (kind: NameKind): string | null => this.#nameOf(node, kind)?.text ?? null;
      const names = { uuid: text('uuid'), partlabel: text('partlabel'), partuuid: text('partuuid') };
      const place = { nodeId: node.file.nodeId, vdev: node.file.name, slot: slotOf(node) };
      return {
        ...place,
        type,
        usage,
        ...texts,
        ...names,
        ...(!this.#isKnown(node, stamps) && { known: false as const }),
      };
    });
  }

  /** For how long the oldest read has been under way; 0: there is none. */
  oldestReadMs(): number {
    const [oldest] = this.#began;
    return oldest === undefined ? 0 : performance.now() - oldest.atMs;
  }

  /** Whether the names of a file are those that it has now. */
  #isKnown(node: TreeNode, stamps: ReadonlyMap<TreeNode, Stamp>): boolean {
    const { tree, gate } = this.#context;
    const { disk, nodeId, part } = node.file;
    const { known = null, running = null, isSlow = false } = this.#readings.get(disk) ?? {};
    if (known === null || known.hasFailed || (isSlow && running !== null)) return false;
    const stamp = stamps.get(node);
    // a paused disk is not read: it may have been written after its last reading
    if (gate.isPaused(nodeId) && (stamp === undefined || !isSame(known.stamp, stamp))) return false;
    const whole = part === undefined ? undefined : tree.byId(part.whole);
    return whole === undefined || this.#isKnown(whole, stamps);
  }

  /** By name. Kept until a reading has ended, or the tree has changed. */
  #links(kind: NameKind): ReadonlyMap<string, TreeNode> {
    const [readings, { changes }] = [this.#ended, this.#context.tree];
    if (this.#kept.readings !== readings || this.#kept.changes !== changes) {
      this.#kept = { readings, changes, byKind: new Map() };
    }
    const links = this.#kept.byKind.get(kind) ?? this.#makeLinks(kind);
    this.#kept.byKind.set(kind, links);
    return links;
  }

  /** Of several files with the same name, that in the lowest slot has the link. */
  #makeLinks(kind: NameKind): ReadonlyMap<string, TreeNode> {
    const links = new Map<string, TreeNode>();
    for (const node of this.#context.tree.after(0)) {
      const name = this.#nameOf(node, kind)?.link ?? null;
      if (name === null) continue;
      const other = links.get(name);
      if (other === undefined || slotOf(node) < slotOf(other)) links.set(name, node);
    }
    return links;
  }

  #nameOf(node: TreeNode, kind: NameKind): Name | null {
    if (kind === 'label' || kind === 'uuid') return this.#factsOf(node)[kind];
    const { part } = node.file;
    const whole = part === undefined ? undefined : this.#context.tree.byId(part.whole);
    if (part === undefined || whole === undefined) return null;
    return this.#factsOf(whole).partitions.get(part.offset)?.[kind] ?? null;
  }

  #factsOf({ file }: TreeNode): Facts {
    return this.#readings.get(file.disk)?.known?.facts ?? NO_FACTS;
  }

  #readingOf({ file }: TreeNode): Reading {
    const reading = this.#readings.get(file.disk) ?? { known: null, running: null, isSlow: false };
    this.#readings.set(file.disk, reading);
    return reading;
  }

  /** Reads anew what may have changed. It begins after the call, so it sees all writes up to now. */
  #refresh(): Promise<void> {
    this.#next ??= nextTurn().then(() => {
      this.#next = null;
      return this.#readStale();
    });
    return this.#next;
  }

  /** Takes at most a second. */
  async #readStale(): Promise<void> {
    const waits: { reading: Reading; done: Promise<void> }[] = [];
    const beganMs = performance.now();
    let begun = 0;
    for (const [node, stamp] of this.#stamps()) {
      const reading = this.#readingOf(node);
      if (isFresh(reading, stamp, this.#maxAgeMs) || this.#context.gate.isPaused(node.file.nodeId)) continue;
      // it hangs: whoever waited for that reading, also in the background, would use memory until it ends
      if (reading.isSlow && reading.running !== null) continue;
      const done = this.#readSince(node, reading, stamp);
      if (!reading.isSlow) waits.push({ reading, done });
      begun += 1;
      if (begun % DISKS_PER_TURN === 0) await nextTurn();
    }
    if (waits.length === 0) return;
    await within(Promise.all(waits.map(({ done }) => done)), LIMIT_MS, null);
    const slow = waits.filter(({ reading }) => reading.running !== null);
    for (const { reading } of slow) reading.isSlow = true;
    // a disk that hangs tells nothing of the others
    if (slow.length === 0) this.#maxAgeMs = Math.max(MAX_AGE_MS, AGE_FACTOR * (performance.now() - beganMs));
  }

  /**
   * Resolves when there is a reading that has seen all writes up to now. One that is under way may have missed some.
   * @param stamp of now
   */
  async #readSince(node: TreeNode, reading: Reading, stamp: Stamp): Promise<void> {
    if (reading.running !== null) {
      await reading.running;
      if (isFresh(reading, stamp, this.#maxAgeMs)) return;
    }
    reading.running ??= this.#read(node, reading, stamp).finally(() => {
      reading.running = null;
    });
    await reading.running;
  }

  /** Never rejects. */
  #read({ file }: TreeNode, reading: Reading, stamp: Stamp): Promise<void> {
    const { tree, gate } = this.#context;
    const { nodeId, disk, sectorBytes = null } = file;
    const { hasPartitions } = stamp;
    const isWanted = (): boolean => tree.byId(nodeId)?.file.disk === disk && !gate.isPaused(nodeId);
    if (!isWanted()) return Promise.resolve();
    const [atMs, atTimeMs] = [performance.now(), Date.now()];
    const began = (read: Promise<unknown>): void => this.#track(nodeId, read);
    return (
      readFacts(disk, { lanes: this.#lanes, hasPartitions, sectorBytes, began, isWanted })
        .then((facts) => ({ facts, hasFailed: false }))
        // a disk that cannot be read has no names
        .catch((error: unknown) => {
          return error instanceof NotWanted || !isWanted() ? null : { facts: NO_FACTS, hasFailed: true };
        })
        .then((found) => {
          if (found !== null) reading.known = { ...found, stamp, atMs, atTimeMs };
          reading.isSlow = performance.now() - atMs > LIMIT_MS;
          this.#ended += 1;
        })
    );
  }

  /** A pause waits for a read, as for the I/O of clients; but not for a read that only waits for its turn. */
  #track(nodeId: number, read: Promise<unknown>): void {
    const one = { atMs: performance.now() };
    this.#began.add(one);
    const end = (): void => void this.#began.delete(one);
    this.#context.gate.track(nodeId, read.then(end, end));
  }

  /** What a reading that begins now would see, of each file. */
  #stamps(): Map<TreeNode, Stamp> {
    const { tree, ledger } = this.#context;
    const all = tree.after(0).map((node) => ({ node, ...belowOf(node) }));
    const sums = new Map<number | string, number>();
    const wholes = new Set<number>();
    for (const { node, group } of all) {
      sums.set(group, (sums.get(group) ?? 0) + ledger.writes(node.file.ledgerIndex));
      if (node.file.part !== undefined) wholes.add(node.file.part.whole);
    }
    return new Map(
      all.map(({ node, group, mtimeMs }) => {
        return [node, { writes: sums.get(group) ?? 0, mtimeMs, hasPartitions: wholes.has(node.file.nodeId) }];
      }),
    );
  }
}

/** Files with the same bytes are one group: a disk with its partitions, and vbds with the same memory. */
function belowOf({ file, backingId }: TreeNode): { group: number | string; mtimeMs: number | null } {
  const window = windowOf(file.disk);
  const isWatched = window?.kind === 'memory' || file.isShared === true || backingId !== null;
  const below = window !== undefined && isWatched ? statAtOnce(window) : null;
  const group = window?.kind === 'memory' && below !== null ? `memory ${below.ino}` : file.flushIndex;
  return { group, mtimeMs: below?.mtimeMs ?? null };
}

function isSame(a: Stamp, b: Stamp): boolean {
  return a.writes === b.writes && a.mtimeMs === b.mtimeMs && a.hasPartitions === b.hasPartitions;
}

function isFresh({ known }: Reading, stamp: Stamp, maxAgeMs: number): boolean {
  if (known === null || !isSame(known.stamp, stamp)) return false;
  const { mtimeMs } = stamp;
  if (mtimeMs !== null && known.atTimeMs - mtimeMs < TICK_MS) return false;
  return performance.now() - known.atMs < maxAgeMs;
}

function slotOf({ file }: TreeNode): number {
  return findSlot(file.name) ?? Number.MAX_SAFE_INTEGER;
}
