/**
 * The names of the files of a bus: what the directories by-label, by-uuid, by-partlabel and by-partuuid show, and what
 * `fusetap ls --fs` tells. Runs on the event loop of the server, when somebody asks:
 *
 *      lookup, readdir ──► each disk: written since its last reading, or read more than a second ago?
 *                             ├─ no ──► its names are known
 *                             └─ yes ─► read it anew, all at the same time ──► wait for them, at most a second
 *
 * Writes cost nothing: the ledger counts them anyway. A disk that took longer than a second is not waited for any more
 * until a reading is quick again: it has the names of its last reading. A disk that is paused is not read.
 */
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../../drivers/disk.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import type { Ledger } from '../ledger/ledger.js';
import { findSlot } from '../slots/slots.js';
import { statBelow } from '../transport/below.js';
import type { NameKind } from '../transport/by-name.js';
import type { IoGate } from '../transport/io-gate.js';
import type { NamesOfFile } from '../transport/transport.js';
import type { Tree, TreeNode } from '../transport/tree.js';
import { type Facts, type Name, NO_FACTS, NotWanted, readFacts } from './facts.js';
import { Lanes } from './lanes.js';

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

/** The readings of a disk. A swap or a resize makes another disk. */
interface Reading {
  known: { readonly facts: Facts; readonly stamp: Stamp; readonly atMs: number; readonly atTimeMs: number } | null;
  running: Promise<void> | null;
  /** its last reading took too long, or has not ended: nobody waits for it */
  isSlow: boolean;
}

export interface NameLink {
  readonly name: string;
  readonly node: TreeNode;
}

export class DiskNames {
  readonly #context: NamesContext;
  readonly #readings = new WeakMap<Disk, Reading>();
  readonly #lanes = new Lanes();
  #maxAgeMs = MAX_AGE_MS;

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
    return this.#context.tree.after(0).map((node) => {
      const { type, usage, label } = this.#factsOf(node);
      const texts = { label: label?.text ?? null, labelEncoded: label?.encoded ?? null };
      const text = (kind: NameKind): string | null => this.#nameOf(node, kind)?.text ?? null;
      const names = { uuid: text('uuid'), partlabel: text('partlabel'), partuuid: text('partuuid') };
      return { nodeId: node.file.nodeId, vdev: node.file.name, slot: slotOf(node), type, usage, ...texts, ...names };
    });
  }

  /** By name. Of several files with the same name, that in the lowest slot has the link. */
  #links(kind: NameKind): Map<string, TreeNode> {
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

  /** Reads anew what may have changed. Takes at most a second. */
  async #refresh(): Promise<void> {
    const waits: { reading: Reading; done: Promise<void> }[] = [];
    const beganMs = performance.now();
    let begun = 0;
    for (const [node, stamp] of this.#stamps()) {
      const reading = this.#readingOf(node);
      if (isFresh(reading, stamp, this.#maxAgeMs) || this.#context.gate.isPaused(node.file.nodeId)) continue;
      const done = this.#readSince(node, reading, stamp);
      if (!reading.isSlow) waits.push({ reading, done });
      begun += 1;
      if (begun % DISKS_PER_TURN === 0) await nextTurn();
    }
    if (waits.length === 0) return;
    const limit = new AbortController();
    const late = delay(LIMIT_MS, undefined, { signal: limit.signal }).catch(() => {});
    await Promise.race([Promise.all(waits.map(({ done }) => done)), late]);
    limit.abort();
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
    const { nodeId, disk } = file;
    const isWanted = (): boolean => tree.byId(nodeId)?.file.disk === disk && !gate.isPaused(nodeId);
    if (!isWanted()) return Promise.resolve();
    const [atMs, atTimeMs] = [performance.now(), Date.now()];
    const work = readFacts(disk, { lanes: this.#lanes, hasPartitions: stamp.hasPartitions, isWanted })
      // a disk that cannot be read has no names
      .catch((error: unknown) => (error instanceof NotWanted || !isWanted() ? null : NO_FACTS))
      .then((facts) => {
        if (facts !== null) reading.known = { facts, stamp, atMs, atTimeMs };
        reading.isSlow = performance.now() - atMs > LIMIT_MS;
      });
    // a pause waits for it, as for the I/O of clients
    gate.track(nodeId, work);
    return work;
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
  const below = window !== undefined && isWatched ? statBelow(window) : null;
  const group = window?.kind === 'memory' && below !== null ? `memory ${below.ino}` : file.flushIndex;
  return { group, mtimeMs: below?.mtimeMs ?? null };
}

function isFresh({ known }: Reading, { writes, mtimeMs, hasPartitions }: Stamp, maxAgeMs: number): boolean {
  if (known === null || known.stamp.writes !== writes || known.stamp.mtimeMs !== mtimeMs) return false;
  if (known.stamp.hasPartitions !== hasPartitions) return false;
  if (mtimeMs !== null && known.atTimeMs - mtimeMs < TICK_MS) return false;
  return performance.now() - known.atMs < maxAgeMs;
}

function slotOf({ file }: TreeNode): number {
  return findSlot(file.name) ?? Number.MAX_SAFE_INTEGER;
}
