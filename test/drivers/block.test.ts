/** The drivers over a block device: a loop device. */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import aio from '../../drivers/aio/index.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { ImageFile, RawDisk } from '../../drivers/driver.js';
import { measureImage } from '../../drivers/image.js';
import ram from '../../drivers/ram/index.js';
import { memfdCreate } from '../../system/libc.js';
import { closeFd } from '../conformance/close-fd.js';
import { asDisk, makeImage } from '../conformance/driver-factory.js';
import { patternBytes } from '../conformance/pattern.js';
import { bySyncCalls } from '../conformance/sync-calls.js';

const SIZE = 4 << 20;
const skip = process.getuid?.() !== 0 ? 'needs root' : existsSync('/dev/loop-control') ? false : 'needs loop devices';

async function openLoop(t: Test): Promise<ImageFile> {
  const made = await makeImage({ size: SIZE, pieces: [{ offset: 0, length: SIZE, seed: 1 }], readOnly: false });
  const path = execFileSync('losetup', ['--find', '--show', made.image.path], { encoding: 'utf8' }).trim();
  const device = await open(path, 'r+');
  t.teardown(async () => {
    await device.close();
    execFileSync('losetup', ['--detach', path]);
    await made.dispose();
  });
  return { fd: device.fd, path, sizeBytes: SIZE, kind: 'block' };
}

async function content(disk: Disk): Promise<Buffer> {
  const bytes = Buffer.alloc(SIZE);
  await disk.read(bytes, 0);
  return bytes;
}

for (const [served, wrap] of [
  ['on the event loop', (raw: RawDisk) => raw],
  ['in a thread', bySyncCalls],
] as const) {
  t.test(`a block device ${served}`, { skip }, async (t) => {
    const image = await openLoop(t);
    t.equal(await measureImage(image), SIZE);
    const raw = await aio.open({
      files: { file: image },
      disks: {},
      memory: null,
      state: null,
      readOnly: false,
      isRepaired: true,
      options: {},
    });
    const disk = frontDisk(wrap(raw), { readOnly: false });
    const model = patternBytes(0, SIZE, 1);
    t.ok((await content(disk)).equals(model));

    await disk.write(patternBytes(1001, 3000, 2), 1001, { durable: true });
    patternBytes(1001, 3000, 2).copy(model, 1001);
    for (const [offset, length, punch] of [
      [8192, 65_536, true],
      [131_072, 65_536, false],
      [300_001, 70_000, true],
      [500_001, 70_000, false],
      [SIZE - 513, 513, false],
    ] as const) {
      await disk.zero(offset, length, { punch, durable: true });
      model.fill(0, offset, offset + length);
    }
    await disk.flush();
    t.ok((await content(disk)).equals(model), 'also where the range is no run of whole sectors');
    t.same(await disk.extents(0, SIZE), [{ offset: 0, length: SIZE, hole: false }]);
    await t.rejects(disk.write(Buffer.alloc(1), SIZE), { code: 'NO_SPACE' });
    await disk.close();
  });
}

t.test('a copy of a block device in memory', { skip }, async (t) => {
  const image = await openLoop(t);
  const memory = { fd: memfdCreate('block') };
  t.teardown(() => closeFd(memory.fd));
  const { signal } = new AbortController();
  const given = { files: {}, disks: { file: await asDisk(image) }, options: {} };
  const state = await ram.prepare({ ...given, memory, path: image.path, signal, progress: () => {} });
  const disk = frontDisk(await ram.open({ ...given, memory, state, readOnly: false, isRepaired: true }), {
    readOnly: false,
  });
  t.ok((await content(disk)).equals(patternBytes(0, SIZE, 1)));
  await disk.close();
});
