/**
 * A server that is killed between any two steps of a change: what was acknowledged is there afterwards, and each sector
 * that the change covers has its old bytes or its new ones. The next server is sent the change again.
 */
import assert from 'node:assert/strict';
import { closeSync } from 'node:fs';
import t from 'tap';
import type { RawDisk } from '../../../drivers/driver.js';
import { layoutOf } from '../../../drivers/snapshot/layout.js';
import { type MemoryCalls, memoryCalls } from '../../../drivers/snapshot/memory-calls.js';
import { snapshotDisk } from '../../../drivers/snapshot/snapshot-disk.js';
import { memfdCreate } from '../../../system/libc.js';
import { byMap } from '../../conformance/by-map.js';
import { makeModel } from '../../conformance/model.js';
import { patternBytes } from '../../conformance/pattern.js';
import { inFile, prepareOver } from './bases.js';

const SLICE = 512 * 4096;
/** whole slices, and a part of one that ends in a cut granule */
const SIZE = 3 * SLICE + 5 * 4096 + 700;
const SECTOR = 512;
const PIECES = [{ offset: 0, length: SIZE, seed: 1 }];
/** nothing changes it, so all tests share it */
const base = await inFile({ size: SIZE, pieces: PIECES });
const BASE_BYTES = makeModel(SIZE, PIECES);
t.teardown(() => base.dispose());
t.setTimeout(240_000);

interface Change {
  readonly kind: 'write' | 'zero';
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

const write = (offset: number, length: number, seed: number): Change => ({ kind: 'write', offset, length, seed });
const zero = (offset: number, length: number): Change => ({ kind: 'zero', offset, length, seed: 0 });

/** How far the step at which the server is killed gets. */
type Reach = 'before' | 'half';

class Killed extends Error {}

/** The calls of a server that is killed at its n-th step. */
function killedAt(calls: MemoryCalls, n: number, reach: Reach): MemoryCalls & { readonly isKilled: boolean } {
  let step = 0;
  let isKilled = false;
  /** @returns how much of a step of that length is done; the kernel looks for a kill after each page */
  const take = (place: number, length: number): number => {
    if (isKilled) throw new Killed();
    step++;
    if (step <= n) return length;
    isKilled = true;
    if (reach === 'before') return 0;
    const pages = Math.floor((place + length) / 4096) - Math.floor(place / 4096);
    return pages === 0 ? 0 : Math.min(length, 4096 - (place % 4096) + Math.floor((pages - 1) / 2) * 4096);
  };
  const end = (): void => {
    if (isKilled) throw new Killed();
  };
  return {
    ...calls,
    get isKilled() {
      return isKilled;
    },
    note(bytes, place) {
      const done = take(place, bytes.length);
      calls.note(bytes.subarray(0, done), place);
      end();
    },
    async write(bytes, place) {
      const done = take(place, bytes.length);
      if (done > 0) await calls.write(bytes.subarray(0, done), place);
      end();
    },
    async punch(place, length) {
      const done = take(place, length);
      if (done > 0) await calls.punch(place, done);
      end();
    },
  };
}

function open(memoryFd: number, calls: MemoryCalls): RawDisk {
  return snapshotDisk({ base: base.disk, layout: layoutOf(SIZE), calls, memoryFd, readOnly: false });
}

async function apply(disk: RawDisk, { kind, offset, length, seed }: Change): Promise<void> {
  if (kind === 'write') await disk.write?.(patternBytes(offset, length, seed), offset, { durable: false });
  else await disk.zero?.(offset, length, { punch: true, durable: false });
}

function applyToModel(model: Buffer, { kind, offset, length, seed }: Change): void {
  if (kind === 'write') patternBytes(offset, length, seed).copy(model, offset);
  else model.fill(0, offset, offset + length);
}

async function contentOf(disk: RawDisk): Promise<Buffer> {
  const content = Buffer.alloc(SIZE);
  await disk.read(content, 0);
  return content;
}

function assertOldOrNew(content: Buffer, before: Buffer, after: Buffer, what: string): void {
  for (let at = 0; at < SIZE; at += SECTOR) {
    const sector = content.subarray(at, at + SECTOR);
    const isOne = sector.equals(before.subarray(at, at + SECTOR)) || sector.equals(after.subarray(at, at + SECTOR));
    assert.ok(isOne, `${what}: the sector at ${at} is neither old nor new`);
  }
}

/** Kills the change at its n-th step. @returns false if it has fewer steps */
async function killOnce(setup: readonly Change[], change: Change, n: number, reach: Reach): Promise<boolean> {
  const fd = memfdCreate('kill');
  try {
    await prepareOver(base.disk, fd);
    const before = Buffer.from(BASE_BYTES);
    const first = open(fd, memoryCalls(fd));
    for (const one of setup) {
      await apply(first, one);
      applyToModel(before, one);
    }
    const after = Buffer.from(before);
    applyToModel(after, change);
    const calls = killedAt(memoryCalls(fd), n, reach);
    const second = open(fd, calls);
    await second.activate?.();
    const isAcknowledged = await apply(second, change).then(
      () => true,
      (error: unknown) => {
        if (!(error instanceof Killed)) throw error;
        return false;
      },
    );
    const what = `${change.kind} at ${change.offset} of ${change.length}, killed ${reach} step ${n + 1}`;
    for (const served of [(raw: RawDisk) => raw, byMap]) {
      const third = served(open(fd, memoryCalls(fd)));
      await third.activate?.();
      assertOldOrNew(await contentOf(third), isAcknowledged ? after : before, after, what);
    }
    const last = open(fd, memoryCalls(fd));
    await last.activate?.();
    // the memory may have bytes that no state names: they must not appear beside another write
    for (const at of [700, 8000]) {
      const near = write(Math.min(change.offset + at, SIZE - 50), 50, 77);
      const expected = await contentOf(last);
      await apply(last, near);
      for (const model of [expected, after]) applyToModel(model, near);
      assert.ok((await contentOf(last)).equals(expected), `${what}, and then another write`);
    }
    await apply(last, change);
    applyToModel(after, change);
    assert.ok((await contentOf(last)).equals(after), `${what}: sent again`);
    assert.ok((await contentOf(byMap(last))).equals(after), `${what}: sent again, by the map`);
    return calls.isKilled;
  } finally {
    closeSync(fd);
  }
}

const MIXED = [write(0, 40_000, 2), zero(8192, 8192), write(SLICE + 4096, 300_000, 3), zero(2 * SLICE, SLICE)];

for (const [name, setup, change] of [
  ['a write to the base', [], write(5000, 30_000, 9)],
  ['a write of a part of one granule', [], write(5000, 100, 9)],
  ['a write of whole granules', [], write(8192, 65_536, 9)],
  ['a write over granules of all states', MIXED, write(3000, 60_000, 9)],
  ['a write across slices', MIXED, write(2 * SLICE - 9000, 20_000, 9)],
  ['a write to granules that were zeroed with their slice', MIXED, write(2 * SLICE + 5000, 9000, 9)],
  ['a write to the end', [], write(SIZE - 5000, 5000, 9)],
  ['zeros over the base', [], zero(5000, 30_000)],
  ['zeros over granules of all states', MIXED, zero(3000, 60_000)],
  ['zeros over a part of one granule', MIXED, zero(4196, 100)],
  ['zeros over slices', MIXED, zero(4000, 2 * SLICE)],
  ['zeros over a slice that is in memory', [write(0, SLICE + 8192, 4)], zero(0, SLICE)],
  ['zeros over all', MIXED, zero(0, SIZE)],
  ['zeros over the last slice', MIXED, zero(3 * SLICE, SIZE - 3 * SLICE)],
  ['zeros twice', [zero(0, SIZE)], zero(4096, SLICE * 2)],
] as const) {
  t.test(`killed in ${name}`, async (t) => {
    for (const reach of ['before', 'half'] as const) {
      let steps = 0;
      while (await killOnce(setup, change, steps, reach)) steps++;
      t.ok(steps > 0 || change.kind === 'zero', `${steps} steps, killed ${reach} each`);
    }
  });
}

t.test('the base is as it was', async () => base.check());
