/**
 * The states that files can have after a power cut. Calls that a flush covered are there. Of later calls each sector has
 * what it had after any of them: the page cache writes a sector as it is at some moment, each at another one.
 *
 *      flushed calls ─► all there          later calls ─► a version of each sector, and of the size of each file
 */
import type { Random } from '../../scripts/lib/torture/second-faults/random.js';
import { SECTOR_BYTES } from './expectation.js';
import { apply, type Call, type Change, copyFiles, type Files, fileOf } from './tape.js';

export interface CutState {
  readonly files: Files;
  /** what was chosen, for messages */
  readonly text: string;
}

/** A call that no flush covered, with its place in the tape. */
interface Loose {
  readonly call: Call & Change;
  readonly index: number;
}

/**
 * Cuts the power after the calls of a tape.
 * @param start the files before the first call, all durable
 */
export function cutPower(start: Files, calls: readonly Call[], random: Random): CutState {
  const files = copyFiles(start);
  const covered = coverage(calls);
  const loose: Loose[] = [];
  for (const [index, call] of calls.entries()) {
    if (call.kind === 'flush') continue;
    if (index < (covered.get(call.file) ?? 0)) apply(files, call);
    else loose.push({ call, index });
  }
  const { text, choose } = choiceOf(loose, random);
  const versions = versionsOf(loose, choose);
  // whether a write beyond the end that the disk knows makes the file larger, if that the file grew is lost
  const growsByWrites = random.isOneIn(2);
  for (const one of loose) applyParts(files, one, { versions, growsByWrites });
  return { files, text: `${text} of ${loose.length} calls that no flush covered` };
}

/** How many calls of each file are durable: those that were done when the last flush began that has ended. */
function coverage(calls: readonly Call[]): Map<string, number> {
  const covered = new Map<string, number>();
  for (const call of calls) {
    if (call.kind === 'flush') covered.set(call.file, Math.max(call.covers, covered.get(call.file) ?? 0));
  }
  return covered;
}

interface Choice {
  readonly text: string;
  /** Tells which of the calls on a sector, by their places in the tape, is the last that counts; -1: none. */
  choose(places: readonly number[]): number;
}

/** Whole calls that are lost or kept show the order of writes; sectors at random show torn ones. */
function choiceOf(loose: readonly Loose[], random: Random): Choice {
  const all = loose.map(({ index }) => index);
  const some = (): Set<number> => {
    if (all.length === 0) return new Set();
    if (random.isOneIn(2)) return new Set([random.pick(all)]);
    const oneIn = random.pick([2, 4, 8]);
    return new Set(all.filter(() => random.isOneIn(oneIn)));
  };
  const chosen = some();
  const names = [...chosen].join(' ') || 'none';
  switch (random.below(8)) {
    case 0:
      return { text: 'none', choose: () => -1 };
    case 1:
      return { text: 'all', choose: (places) => places.at(-1) ?? -1 };
    case 2:
    case 3:
      return { text: 'sectors', choose: (places) => random.pick([-1, ...places]) };
    case 4:
    case 5:
      return { text: `kept: ${names}`, choose: (places) => places.filter((place) => chosen.has(place)).at(-1) ?? -1 };
    default:
      return { text: `lost: ${names}`, choose: (places) => lastBefore(places, chosen) };
  }
}

/** The last place before the first one that is lost. */
function lastBefore(places: readonly number[], lost: ReadonlySet<number>): number {
  const first = places.findIndex((place) => lost.has(place));
  const there = first === -1 ? places : places.slice(0, first);
  return there.at(-1) ?? -1;
}

/** The last call that counts, by sector; under SIZE for the size of the file. */
type Versions = ReadonlyMap<string, ReadonlyMap<number, number>>;
const SIZE = -1;

function versionsOf(loose: readonly Loose[], choose: Choice['choose']): Versions {
  const places = new Map<string, Map<number, number[]>>();
  const firm = new Map<string, Map<number, number>>();
  for (const { call, index } of loose) {
    const ofFile = getOrMake(places, call.file);
    for (const sector of sectorsOf(call)) {
      const list = ofFile.get(sector);
      if (list === undefined) ofFile.set(sector, [index]);
      else list.push(index);
      if (call.durable) getOrMake(firm, call.file).set(sector, index);
    }
  }
  return new Map(
    [...places].map(([file, bySector]) => {
      const least = firm.get(file);
      return [file, new Map([...bySector].map(([at, list]) => [at, Math.max(choose(list), least?.get(at) ?? -1)]))];
    }),
  );
}

function getOrMake<Key, Value>(maps: Map<string, Map<Key, Value>>, name: string): Map<Key, Value> {
  const found = maps.get(name) ?? new Map<Key, Value>();
  maps.set(name, found);
  return found;
}

function* sectorsOf(change: Change): Generator<number> {
  if (change.kind === 'grow') return yield SIZE;
  const end = change.offset + lengthOf(change);
  for (let sector = Math.floor(change.offset / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector++) yield sector;
}

function lengthOf(change: Exclude<Change, { readonly kind: 'grow' }>): number {
  return change.kind === 'write' ? change.bytes.length : change.length;
}

interface Parts {
  readonly versions: Versions;
  readonly growsByWrites: boolean;
}

/** Does the parts of a call that count, sector by sector. */
function applyParts(files: Files, { call, index }: Loose, { versions, growsByWrites }: Parts): void {
  const file = fileOf(files, call.file);
  const counts = (sector: number): boolean => index <= (versions.get(call.file)?.get(sector) ?? -1);
  if (call.kind === 'grow') {
    if (counts(SIZE)) apply(files, call);
    return;
  }
  const end = call.offset + lengthOf(call);
  for (let at = call.offset; at < end; ) {
    const next = Math.min(end, at - (at % SECTOR_BYTES) + SECTOR_BYTES);
    if (counts(Math.floor(at / SECTOR_BYTES))) {
      if (call.kind === 'write' && growsByWrites) file.resize(Math.max(file.size, next));
      const to = Math.min(next, file.size);
      if (to > at && call.kind === 'zero') file.zero(at, to - at);
      else if (to > at && call.kind === 'write')
        file.write(call.bytes.subarray(at - call.offset, to - call.offset), at);
    }
    at = next;
  }
}
