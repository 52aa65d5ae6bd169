import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';
import { type Builder, graphFactory, makeFile, openImageDisk } from './graph-factory.js';
import { vhdFooter } from './images/vhd.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from './qemu.js';

const MIB = 1 << 20;
const abilities = { maxSizeBytes: 2 ** 42, holes: true, shrink: true };

const builder =
  (footerBytes: number): Builder =>
  async (size, directory) => {
    const path = join(directory, 'disk.vhd');
    await makeFile(path, size + footerBytes, [size, vhdFooter({ size, bytes: footerBytes })]);
    return {
      graph: { driver: 'vhd', options: {}, on: { file: { file: path } } },
      runs: [{ path, offset: 0, start: 0, size }],
    };
  };

diskSuite({ name: 'vhd', test: t, factory: graphFactory(builder(512)), abilities });
const inThread = graphFactory(builder(511), { wrap: bySyncCalls });
diskSuite({ name: 'vhd with an old footer, in a thread', test: t, factory: inThread, abilities });

t.test('nothing is written over the footer', async (t) => {
  for (const bytes of [512, 511]) {
    const size = 3 * MIB;
    const footer = vhdFooter({ size, bytes });
    const path = await makeFile(join(t.testdir(), 'disk.vhd'), size + bytes, [size, footer]);
    const disk = await openImageDisk('vhd', path);
    t.equal(disk.size, size);
    t.equal(await disk.write(Buffer.alloc(2 * MIB, 1), size - 100), 100, 'a write is cut at the end');
    await disk.zero(0, size + 4096, { punch: true });
    await t.rejects(disk.write(Buffer.alloc(1), size), { code: 'NO_SPACE' });
    await disk.close();
    const file = await readFile(path);
    t.equal(file.length, size + bytes);
    t.ok(file.subarray(size).equals(footer));
  }
});

t.test('the size is the current size, also if there is more room', async (t) => {
  const footer = vhdFooter({ size: 1000 });
  const disk = await openImageDisk('vhd', await makeFile(join(t.testdir(), 'a.vhd'), 4096 + 512, [4096, footer]));
  t.equal(disk.size, 1000);
  await disk.close();
});

t.test('a hidden image, the base of others, is only read', async (t) => {
  const footer = vhdFooter({ size: 4096, hidden: 1 });
  const path = await makeFile(join(t.testdir(), 'a.vhd'), 4096 + 512, [4096, footer]);
  await t.rejects(openImageDisk('vhd', path), { code: 'DENIED', hint: /mode r/ });
  const disk = await openImageDisk('vhd', path, true);
  t.equal(disk.size, 4096);
  await disk.close();
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  const path = join(t.testdir(), 'disk.vhd');
  await t.test('have the same size and bytes here', async (t) => {
    qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size', path, '5M');
    qemuIo('vpc', path, 'write -P 0x41 4096 1M');
    const disk = await openImageDisk('vhd', path);
    t.equal(disk.size, qemuSize('vpc', path));
    t.equal(disk.size, 5 * MIB);
    await compareWithQemu('vpc', path, disk);
    await disk.close();
  });
  await t.test('are written here and read there', async () => {
    const disk = await openImageDisk('vhd', path);
    await disk.write(Buffer.alloc(8192, 0x42), 5 * MIB - 8192);
    await disk.write(patternBytes(0, 3000, 1), 0);
    await disk.flush();
    qemuIo('vpc', path, `read -P 0x42 ${5 * MIB - 8192} 8192`);
    qemuIo('vpc', path, 'read -P 0x41 4096 1M');
    await compareWithQemu('vpc', path, disk);
    await disk.close();
  });
  await t.test('of a size that fits no geometry are whole', async (t) => {
    const rounded = join(t.testdir(), 'rounded.vhd');
    qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed', rounded, '10000K');
    const disk = await openImageDisk('vhd', rounded);
    t.equal(disk.size, qemuSize('vpc', rounded));
    await disk.close();
  });
  await t.test('with a block table are refused', async (t) => {
    const dynamic = join(t.testdir(), 'dynamic.vhd');
    qemuImg('create', '-q', '-f', 'vpc', dynamic, '5M');
    await t.rejects(openImageDisk('vhd', dynamic), {
      code: 'UNSUPPORTED',
      message: /dynamic/,
      hint: /qemu-img convert/,
    });
    const file = await open(dynamic, 'r+');
    await file.truncate((await file.stat()).size - 512);
    await file.close();
    const lost = { code: 'UNSUPPORTED', message: /dynamic/ };
    await t.rejects(openImageDisk('vhd', dynamic), lost, 'also without a footer, as after a crash');
    const qcow2 = join(t.testdir(), 'a.qcow2');
    qemuImg('create', '-q', '-f', 'qcow2', qcow2, '5M');
    await t.rejects(openImageDisk('vhd', qcow2), {
      code: 'USAGE',
      message: 'it is not a VHD image: it is a qcow2 image',
    });
  });
});
