/** Reopening, closing, and an image that shrinks while its disk is open. */
import assert from 'node:assert/strict';
import { constants } from 'node:os';
import { checkAll, makeModel } from './model.js';
import { patternBytes } from './pattern.js';
import { assertSameBytes, failsWith, readGuarded, withDisk } from './session.js';
import { type SuiteOptions, unlessWritten } from './suite.js';

const { errno: E } = constants;
const SIZE = 100_001;
const PIECES = [{ offset: 0, length: SIZE, seed: 7 }];

export function lifecycleTests(options: SuiteOptions): void {
  closeTests(options);
  shrinkTests(options);
}

function closeTests({ name, test, factory, abilities }: SuiteOptions): void {
  test.test(`${name}: a closed disk answers EBADF, and a second close does nothing`, { skip: false }, () =>
    withDisk(factory, { size: SIZE }, async ({ disk }) => {
      await Promise.all([disk.close(), disk.close()]);
      await disk.close();
      const calls = [
        () => disk.read(Buffer.alloc(1), 0),
        () => disk.read(Buffer.alloc(0), 0),
        () => disk.write(Buffer.alloc(1), 0),
        () => disk.zero(0, 1),
        () => disk.extents(0, 1),
        () => disk.flush(),
      ];
      for (const call of calls) await assert.rejects(call, failsWith('FAILED', E.EBADF));
    }),
  );

  test.test(`${name}: close waits for calls under way`, { skip: unlessWritten(abilities) }, () =>
    withDisk(factory, { size: SIZE }, async (session) => {
      const { disk } = session;
      const done: string[] = [];
      const bytes = patternBytes(0, SIZE, 8);
      const writes = [0, 1, 2].map(() => disk.write(bytes, 0).then(() => done.push('write')));
      const closing = disk.close().then(() => done.push('close'));
      await Promise.all([...writes, closing]);
      assert.deepEqual(done, ['write', 'write', 'write', 'close']);
    }),
  );
}

function shrinkTests({ name, test, factory, abilities }: SuiteOptions): void {
  const skip = abilities.shrink ? unlessWritten(abilities) : 'its image cannot shrink below it';
  test.test(`${name}: bytes that a shrunk image no longer has give EIO, never zeros or a hole`, { skip }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async ({ disk, made }) => {
      await made.shrink?.(50_000);
      const kept = await readGuarded(disk, 49_000, 1000);
      assertSameBytes(kept, patternBytes(49_000, 1000, 7), 49_000, 'what is left');
      for (const [offset, length] of [
        [49_999, 2],
        [50_000, 1],
        [60_000, 4096],
        [SIZE - 1, 1],
      ] as const) {
        await assert.rejects(disk.read(Buffer.alloc(length), offset), failsWith('FAILED', E.EIO));
      }
      await assert.rejects(disk.extents(60_000, 100), failsWith('FAILED', E.EIO));
      assert.equal(disk.size, SIZE, 'the size of the disk does not change');
      // a write would fill the missing bytes before it with zeros
      await assert.rejects(disk.write(patternBytes(60_000, 100, 7), 60_000), failsWith('FAILED', E.EIO));
      await assert.rejects(disk.read(Buffer.alloc(1), 55_000), failsWith('FAILED', E.EIO));
      await disk.write(patternBytes(49_990, 20, 7), 49_990);
      assertSameBytes(
        await readGuarded(disk, 50_000, 10),
        patternBytes(50_000, 10, 7),
        50_000,
        'written across the end',
      );
    }),
  );

  test.test(`${name}: an image whose size was restored is served again`, { skip }, () =>
    withDisk(factory, { size: SIZE, pieces: PIECES }, async (session) => {
      const { disk, made } = session;
      await made.shrink?.(50_000);
      await made.shrink?.(SIZE);
      await disk.write(patternBytes(50_000, SIZE - 50_000, 7), 50_000);
      await checkAll(session, makeModel(SIZE, PIECES));
    }),
  );
}
