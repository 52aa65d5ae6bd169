/** Windows that are a part of a file, and windows of files whose file system cannot zero (tmpfs). */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import t from 'tap';
import aio from '../../drivers/aio/index.js';
import type { RawDisk, Window } from '../../drivers/driver.js';
import { windowDisk } from '../../drivers/segments/window.js';
import { driverFactory, type MadeImage, makeImage } from '../conformance/driver-factory.js';
import { type Piece, patternBytes, pieceBytes } from '../conformance/pattern.js';
import { type DiskFactory, diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';

const START = 4103;
const AFTER = 5000;
const SURROUNDINGS = 77;

/** A window inside a file, whose surroundings must be as they were when the disk is disposed of. */
function partFactory(wrap: (raw: RawDisk) => RawDisk): DiskFactory {
  return async ({ size, pieces, readOnly }) => {
    const around = [
      { offset: 0, length: START, seed: SURROUNDINGS },
      { offset: START + size, length: AFTER, seed: SURROUNDINGS },
    ];
    const made = await makeImage({ size: START + size + AFTER, pieces: around, readOnly });
    for (const { offset, length, seed } of pieces) {
      await made.file.write(patternBytes(offset, length, seed), 0, length, START + offset);
    }
    const window: Window = { fd: made.image.fd, start: START, size, kind: 'file', readOnly, durable: false };
    const reopen = async () => wrap(windowDisk(window, async () => {}));
    return {
      raw: await reopen(),
      reopen,
      async dispose() {
        try {
          await checkSurroundings(made, around);
        } finally {
          await made.dispose();
        }
      },
    };
  };
}

async function checkSurroundings({ file }: MadeImage, around: readonly Piece[]): Promise<void> {
  for (const piece of around) {
    const bytes = Buffer.alloc(piece.length);
    await file.read(bytes, 0, piece.length, piece.offset);
    assert.ok(bytes.equals(pieceBytes(piece)), `the bytes around the window, at ${piece.offset}`);
  }
}

const abilities = { maxSizeBytes: 2 ** 42, holes: false, shrink: false };
diskSuite({ name: 'part of a file', test: t, factory: partFactory((raw) => raw), abilities, runs: 6 });
diskSuite({ name: 'part of a file in a thread', test: t, factory: partFactory(bySyncCalls), abilities, runs: 6 });

const directory = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
const tmpfs = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };
diskSuite({
  name: 'tmpfs',
  test: t,
  factory: driverFactory(aio, { directory }),
  abilities: { ...tmpfs, growth: true },
  runs: 4,
});
diskSuite({
  name: 'tmpfs in a thread',
  test: t,
  factory: driverFactory(aio, { directory, wrap: bySyncCalls }),
  abilities: tmpfs,
  runs: 4,
});
