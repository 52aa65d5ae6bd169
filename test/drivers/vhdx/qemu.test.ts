/** Images that QEMU makes and writes have the same bytes here, also after QEMU was killed. */
import { spawnSync } from 'node:child_process';
import { copyFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { describeImage } from '../../../mount/offline/describe-image.js';
import { patternBytes } from '../../conformance/pattern.js';
import { isInstalled } from '../../e2e/command.js';
import { randomNumbers, seedOf } from '../../rules/random.js';
import { makeFile, openImageDisk } from '../graph-factory.js';
import { compareWithQemu, qemuImg, qemuIo, qemuSize, whyNoQemu } from '../qemu.js';

t.setTimeout(180_000);
const skip = whyNoQemu();
const MIB = 1 << 20;

async function compare(path: string, judged = path): Promise<void> {
  const disk = await openImageDisk('vhdx', path, true);
  await compareWithQemu('vhdx', judged, disk);
  await disk.close();
}

const SHAPES: [options: string, size: number][] = [
  ['subformat=dynamic', 5 * MIB],
  ['subformat=dynamic', 40 * MIB + 512],
  ['block_size=1M', 20 * MIB + 3 * 512],
  ['block_size=1M,log_size=4M', 9 * MIB],
  ['block_size=2M,block_state_zero=off', 11 * MIB],
  ['block_size=256M', 300 * MIB],
  ['subformat=fixed', 7 * MIB + 512],
  ['subformat=fixed,block_size=1M', 20 * MIB],
];

t.test('images of QEMU, written at random', { skip }, async (t) => {
  const random = randomNumbers(seedOf(t));
  for (const [index, [options, size]] of SHAPES.entries()) {
    const path = join(t.testdirName, `${index}.vhdx`);
    if (index === 0) t.testdir();
    qemuImg('create', '-q', '-f', 'vhdx', '-o', options, path, String(size));
    for (let i = 0; i < 5; i++) {
      const offset = 512 * random(size / 512);
      const length = Math.min(size - offset, 512 * (1 + random(5000)));
      qemuIo('vhdx', path, `write -P ${1 + random(200)} ${offset} ${length}`);
    }
    await compare(path);
    t.equal(qemuSize('vhdx', path), size, options);
  }
});

t.test('images that QEMU converts', { skip }, async (t) => {
  const raw = await makeFile(join(t.testdir(), 'a.img'), 12 * MIB, [3 * MIB - 700, patternBytes(0, 2 * MIB, 5)]);
  for (const options of ['subformat=fixed', 'block_size=1M', 'subformat=dynamic']) {
    const path = join(t.testdirName, 'a.vhdx');
    qemuImg('convert', '-f', 'raw', '-O', 'vhdx', '-o', options, raw, path);
    await compare(path);
  }
  t.pass();
});

t.test('a disk of more than one chunk', { skip }, async (t) => {
  // with blocks of 1 MiB, an entry of a sector bitmap follows each 4096 blocks
  const path = join(t.testdir(), 'a.vhdx');
  qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path, '100G');
  const places = [4095, 4096, 8191, 8192, 50_000, 102_399];
  for (const [i, block] of places.entries()) qemuIo('vhdx', path, `write -P ${i + 1} ${block}M 64k`);
  const disk = await openImageDisk('vhdx', path, true);
  for (const [i, block] of places.entries()) {
    const bytes = Buffer.alloc(MIB);
    await disk.read(bytes, block * MIB);
    t.ok(
      bytes.subarray(0, 65_536).every((byte) => byte === i + 1),
      `block ${block}`,
    );
    t.ok(bytes.subarray(65_536).every((byte) => byte === 0));
  }
  const data = (await disk.extents(0, disk.size)).filter(({ hole }) => !hole);
  t.same(
    data.map(({ offset, length }) => [offset, length]),
    places.map((block) => [block * MIB, 65_536]),
    'all else is a hole',
  );
  await disk.close();
});

t.test('an image whose writer was killed', { skip }, async (t) => {
  const [path, repaired] = [join(t.testdir(), 'a.vhdx'), join(t.testdirName, 'repaired.vhdx')];
  qemuImg('create', '-q', '-f', 'vhdx', '-o', 'block_size=1M', path, '40M');
  for (let i = 0; i < 4; i++) {
    const words = [`write -P ${10 + i} ${7 * i}M 3M`, `write -P ${20 + i} ${5 * i + 2}M 100k`, 'sigraise 9'];
    spawnSync('qemu-io', ['-f', 'vhdx', ...words.flatMap((word) => ['-c', word]), path]);
    const before = await readFile(path);
    await copyFile(path, repaired);
    qemuImg('check', '-q', '-r', 'all', '-f', 'vhdx', repaired);
    await compare(path, repaired);
    t.ok(before.equals(await readFile(path)), 'the file is as it was');
  }
});

t.test('what is told of an image', { skip }, async (t) => {
  const path = join(t.testdir(), 'a.vhdx');
  qemuImg('create', '-q', '-f', 'vhdx', '-o', 'subformat=fixed,block_size=2M', path, '6M');
  t.match(await describeImage({ path, drivers: [] }, 'same-directory'), {
    format: 'vhdx',
    size: 6 * MIB,
    facts: {
      blockBytes: 2 * MIB,
      logicalSectorBytes: 512,
      physicalSectorBytes: 512,
      type: /fixed|dynamic/,
      log: 'empty',
      parent: false,
      creator: /^QEMU v\d/,
    },
    chain: [],
  });
});

const noJudge = isInstalled('vhdiinfo') ? skip : 'not installed: vhdiinfo';
t.test('libvhdi finds the same size', { skip: noJudge }, async (t) => {
  const path = join(t.testdir(), 'a.vhdx');
  qemuImg('create', '-q', '-f', 'vhdx', path, '6M');
  const { stdout } = spawnSync('vhdiinfo', [path], { encoding: 'utf8' });
  t.match(stdout, /6291456 bytes/);
});
