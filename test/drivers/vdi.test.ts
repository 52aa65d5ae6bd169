import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';
import { type Builder, graphFactory, makeFile, openImageDisk } from './graph-factory.js';
import { vdiHead } from './images/vdi.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from './qemu.js';

const MIB = 1 << 20;
const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };

const builder: Builder = async (size, directory) => {
  const path = join(directory, 'disk.vdi');
  // large disks have large blocks, so that their maps stay small
  const { head, dataStart } = vdiHead({ size, blockBytes: size > 2 ** 34 ? 1 << 28 : MIB });
  await makeFile(path, dataStart + size, [0, head]);
  return {
    graph: { driver: 'vdi', options: {}, on: { file: { file: path } } },
    runs: [{ path, offset: 0, start: dataStart, size }],
  };
};

diskSuite({ name: 'vdi', test: t, factory: graphFactory(builder), abilities });
diskSuite({ name: 'vdi in a thread', test: t, factory: graphFactory(builder, { wrap: bySyncCalls }), abilities });

t.test('nothing is written over the header and what follows the disk', async (t) => {
  const size = 2 * MIB + 500;
  const { head, dataStart } = vdiHead({ size });
  const path = await makeFile(join(t.testdir(), 'a.vdi'), dataStart + 3 * MIB, [0, head]);
  const disk = await openImageDisk('vdi', path);
  t.equal(await disk.write(Buffer.alloc(size + 1000, 1), 0), size);
  await disk.close();
  const file = await readFile(path);
  t.ok(file.subarray(0, dataStart).equals(head));
  t.ok(file.subarray(dataStart + size).every((byte) => byte === 0));
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  const path = join(t.testdir(), 'disk.vdi');
  await t.test('that are static have the same size and bytes here', async (t) => {
    qemuImg('create', '-q', '-f', 'vdi', '-o', 'static=on', path, '5M');
    qemuIo('vdi', path, 'write -P 0x41 4096 1M');
    const disk = await openImageDisk('vdi', path);
    t.equal(disk.size, qemuSize('vdi', path));
    await compareWithQemu('vdi', path, disk);
    await disk.close();
  });
  await t.test('are written here and read there', async (t) => {
    const disk = await openImageDisk('vdi', path);
    await disk.write(Buffer.alloc(8192, 0x42), 5 * MIB - 8192);
    await disk.write(patternBytes(0, 3000, 1), 0);
    await disk.flush();
    qemuIo('vdi', path, `read -P 0x42 ${5 * MIB - 8192} 8192`);
    await compareWithQemu('vdi', path, disk);
    await disk.close();
    t.match(qemuImg('check', '-f', 'vdi', path), /No errors/);
  });
  await t.test('that are dynamic are refused', async (t) => {
    const dynamic = join(t.testdir(), 'dynamic.vdi');
    qemuImg('create', '-q', '-f', 'vdi', dynamic, '5M');
    await t.rejects(openImageDisk('vdi', dynamic), {
      code: 'UNSUPPORTED',
      message: /dynamic/,
      hint: /qemu-img convert/,
    });
  });
});
