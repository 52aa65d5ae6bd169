/**
 * Snapshots of VHDs as XenServer makes them, by tap-ctl: the disk is paused, its image becomes the parent of a new one, and
 * the disk goes on with that.
 *
 *      base.vhd, hidden, as tapdisk writes it ─┬─► a.vhd ──► a2.vhd ──► a3.vhd, each made while the disk is paused
 *                                              └─► b.vhd
 *
 * A model tells what each disk must show. fusetap checks each file, and libvhdi reads each layer.
 */
import { spawnSync } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { dynamicVhd } from '../drivers/images/vhd.js';
import { randomNumbers, seedOf } from '../rules/random.js';
import { KERNEL } from '../survival/bus.js';
import { Client } from './client.js';
import { isInstalled } from './command.js';
import { type Bench, openBench, whyNot } from './fixtures.js';
import { replaceServer } from './kill-server.js';
import { print, tap } from './tap-ctl.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const SIZE = 12 * MIB;
const BLOCK = 2 * MIB;

/** A disk that tap-ctl serves, and what it must show. */
interface Served {
  readonly device: string;
  readonly pid: string;
  readonly minor: string;
  readonly model: Buffer;
}

t.test('snapshots of a VHD with two children', { skip: whyNot('dd', 'cmp', 'fallocate', 'perl') }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const random = randomNumbers(seedOf(t));
  const golden = await makeBase(bench);
  for (const name of ['a.vhd', 'b.vhd']) await makeChild(bench, 'base.vhd', name);
  t.match(await tap(bench, `create -a vhd:${bench.path('base.vhd')}`), { stderr: /must not be written/ });
  const a = await serveAtOnce(bench, 'a.vhd', golden);
  const b = await serveInSteps(bench, 'b.vhd', golden);
  for (const disk of [a, b]) await change(bench, disk, random);

  const first = await snapshot(t, bench, a, ['a.vhd', 'a2.vhd']);
  for (const disk of [a, b]) await change(bench, disk, random);
  await replaceServer(bench, { bus: `tap${a.minor}`, limitMs: 20_000 });
  const second = await snapshot(t, bench, a, ['a2.vhd', 'a3.vhd']);
  for (const disk of [a, b]) await change(bench, disk, random);

  for (const disk of [a, b]) t.equal(await differs(bench, disk), '', `${disk.device} shows its model`);
  for (const { pid, minor } of [a, b]) await print(bench, `destroy -p ${pid} -m ${minor}`);

  for (const name of ['base.vhd', 'a.vhd', 'a2.vhd', 'a3.vhd', 'b.vhd']) {
    t.match(await bench.fusetap(['check', name]), { status: 0, stdout: /no fault was found/ }, name);
  }
  t.ok((await readFile(bench.path('base.vhd'))).equals(baseImage(golden)), 'no byte of the base has changed');
  const layers = { 'a3.vhd': [golden, first, second, a.model], 'b.vhd': [golden, b.model] };
  for (const [name, models] of Object.entries(layers)) {
    const disk = await bench.attach(`vhd:${name}`, 'xvda', 'r');
    await writeFile(bench.path('model'), models.at(-1) as Buffer);
    t.equal(await bench.sh('cmp "$1" model || true', disk), '', `${name} has all that was written`);
    await bench.detach('--all');
    await compareLayers(t, bench.path(name), models);
  }
  t.same(await bench.traces(), []);
});

t.test('a snapshot of a VHD on a block device', { skip: whyNot('dd', 'losetup', 'truncate') }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.succeed(['create', '--format', 'vhd', 'volume', '8M']);
  const device = await bench.sh('truncate -s 32M volume; losetup --find --show volume');
  t.teardown(() => bench.sh('losetup --detach "$1"', device));
  const vbd = await bench.attach(`vhd:${device}`);
  await bench.sh('printf before | dd of="$1" bs=1M seek=3 conv=notrunc status=none', vbd);
  const words = ['create', '--format', 'vhd', '--backing', device, '--backing-format', 'vhd', 'child.vhd'];
  t.match(await bench.fusetap(words), { status: 4, stderr: /fusetap pause --bus 0 xvda$/m });
  await bench.succeed(['pause', 'xvda']);
  await bench.succeed(words);
  await bench.succeed(['swap', '--backing', 'any', 'xvda', 'vhd:child.vhd']);
  await bench.succeed(['resume', 'xvda']);
  await bench.sh('printf after | dd of="$1" bs=1M seek=4 conv=notrunc status=none', vbd);
  const text = 'for at in 3 4; do dd if="$1" bs=1M skip=$at count=1 status=none | head -c 6 | tr -d "\\0"; done';
  t.equal(await bench.sh(text, vbd), 'beforeafter');
  t.equal((await bench.fusetap(['attach', `vhd:${device}`, 'xvdb', 'w'])).status, 4, 'the base is read');
  const base = await bench.attach(`vhd:${device}`, 'xvdb', 'r');
  t.equal(await bench.sh(text, base), 'before');
  await bench.detach('--all');
  for (const image of [device, 'child.vhd']) t.equal((await bench.fusetap(['check', image])).status, 0, image);
});

/** A hidden VHD with a batmap, with blocks in another order than that of the disk. @returns the bytes of its disk */
async function makeBase(bench: Bench): Promise<Buffer> {
  const golden = Buffer.alloc(SIZE);
  for (const block of BASE_BLOCKS) patternBytes(0, BLOCK, block).copy(golden, block * BLOCK);
  await writeFile(bench.path('base.vhd'), baseImage(golden));
  return golden;
}

const BASE_BLOCKS = [3, 0, 4];

function baseImage(golden: Buffer): Buffer {
  const placed = BASE_BLOCKS.map((block) => ({ block, data: golden.subarray(block * BLOCK, (block + 1) * BLOCK) }));
  const tapdisk = { creator: 'tap\0', creatorVersion: 0x0001_0003, hidden: 1, hasBatmap: true };
  return dynamicVhd({ size: SIZE, blockBytes: BLOCK, placed, ...tapdisk });
}

async function makeChild(bench: Bench, base: string, name: string): Promise<void> {
  await bench.succeed(['create', '--format', 'vhd', '--backing', base, '--backing-format', 'vhd', name]);
}

async function serveAtOnce(bench: Bench, name: string, golden: Buffer): Promise<Served> {
  const device = await print(bench, `create -a vhd:${bench.path(name)}`);
  const minor = /\d+$/.exec(device)?.[0] ?? '';
  const pid = /pid=(\d+)/.exec(await print(bench, `list -m ${minor}`))?.[1] ?? '';
  return { device, pid, minor, model: Buffer.from(golden) };
}

async function serveInSteps(bench: Bench, name: string, golden: Buffer): Promise<Served> {
  const device = await print(bench, 'allocate');
  const minor = /\d+$/.exec(device)?.[0] ?? '';
  const pid = await print(bench, 'spawn');
  await print(bench, `attach -p ${pid} -m ${minor}`);
  await print(bench, `open -p ${pid} -m ${minor} -a vhd:${bench.path(name)}`);
  return { device, pid, minor, model: Buffer.from(golden) };
}

/** Makes the image of a disk the parent of a new one, while a write waits. @returns what the disk showed before */
async function snapshot(
  t: Test,
  bench: Bench,
  { device, pid, minor, model }: Served,
  [old, fresh]: readonly [string, string],
): Promise<Buffer> {
  const both = `-p ${pid} -m ${minor}`;
  const client = await Client.open(t, bench, 'write', device);
  const [first, second] = [BLOCK - 100, 5 * BLOCK + 7];
  t.equal(await client.call('write', first, 300, 'x'), '300');
  model.fill('x', first, first + 300);
  const words = ['create', '--format', 'vhd', '--backing', old, '--backing-format', 'vhd', fresh];
  t.match(await bench.fusetap(words), { status: 4, stderr: /fusetap pause --bus tap\d+ / });
  await print(bench, `pause ${both}`);
  const waiting = client.call('write', second, 300, 'y');
  const before = Buffer.from(model);
  await bench.succeed(words);
  await print(bench, `unpause ${both} -a vhd:${bench.path(fresh)}`);
  t.equal(await waiting, '300', 'the write goes to the new image');
  model.fill('y', second, second + 300);
  t.match(await print(bench, `list -m ${minor}`), new RegExp(`state=0 args=vhd:${bench.path(fresh)}$`));
  await client.release();
  return before;
}

/** Writes, discards and zeroes at random, on the disk and in its model. */
async function change(bench: Bench, { device, model }: Served, random: (below: number) => number): Promise<void> {
  const script: string[] = [];
  for (let i = 0; i < 24; i++) {
    const at = random(SIZE);
    const length = Math.min(SIZE - at, 1 + random(i % 8 === 0 ? 3 * MIB : 20_000));
    if (i % 6 === 5) {
      script.push(`fallocate ${i % 4 === 1 ? '-p' : '-z'} -n -o ${at} -l ${length} "$1"`);
      model.fill(0, at, at + length);
      continue;
    }
    const bytes = patternBytes(0, length, random(1000));
    await writeFile(bench.path(`piece-${i}`), bytes);
    script.push(`dd if=piece-${i} of="$1" bs=1M seek=${at} oflag=seek_bytes conv=notrunc status=none`);
    bytes.copy(model, at);
  }
  await bench.sh(script.join('\n'), device);
}

async function differs(bench: Bench, { device, model }: Served): Promise<string> {
  await writeFile(bench.path('model'), model);
  return await bench.sh('cmp "$1" model || true', device);
}

/** libvhdi shows the layers of a chain as files, the lowest one first. */
async function compareLayers(t: Test, path: string, models: readonly Buffer[]): Promise<void> {
  if (!isInstalled('vhdimount')) return;
  const mount = await mkdtemp(join(tmpdir(), 'vhdi-'));
  try {
    const { status, stderr } = spawnSync('vhdimount', [path, mount], { encoding: 'utf8' });
    t.equal(status, 0, stderr);
    for (const [i, model] of models.entries()) {
      const isEqual = spawnSync('cmp', ['-', join(mount, `vhdi${i + 1}`)], { input: model }).status === 0;
      t.ok(isEqual, `libvhdi reads layer ${i + 1} of ${path}`);
    }
  } finally {
    spawnSync('fusermount', ['-u', mount]);
    await rm(mount, { recursive: true });
  }
}
