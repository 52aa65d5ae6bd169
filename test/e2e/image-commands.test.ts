/** `create`, `info` and `check` on images that buses use, and that QEMU and buses have written. */
import { spawnSync } from 'node:child_process';
import t, { type Test } from 'tap';
import { resolveBus } from '../../mount/client/index.js';
import { call } from '../../mount/control/call.js';
import { nameOfCopy } from '../../mount/pausing/pause-other-buses.js';
import { qemuCheck } from '../drivers/qcow2/qemu-images.js';
import { qemuImg, qemuIo, whyNoQemu } from '../drivers/qemu.js';
import { KERNEL } from '../survival/bus.js';
import { type Bench, openBench, whyNot } from './fixtures.js';
import { replaceServer } from './kill-server.js';

t.setTimeout(180_000);

const MIB = 1 << 20;

const STORIES: Readonly<Record<string, (t: Test, bench: Bench) => Promise<void>>> = {
  'a new image over a base is attached, written, described and checked': useNewImage,
  'a new VMDK is written under servers that are killed, and one over it': useNewVmdk,
  'an image in use is not checked, but described': useAttachedImage,
  'a paused vbd gets a new image over its old one': snapshotPaused,
  'an image that was not closed cleanly is repaired': repairDirtyImage,
  'leaks end with 3, corruptions with 2': tellFaults,
  'a driver of another format, and a file whose name begins like a driver': tellWrongWords,
};

t.test('commands for images', { skip: whyNot('dd') || whyNoQemu() }, async (t) => {
  for (const [name, story] of Object.entries(STORIES)) {
    await t.test(name, async (t) => story(t, await openBench(t, KERNEL)));
  }
});

interface Info {
  readonly chain: readonly { readonly name: string; readonly path: string; readonly error: string | null }[];
}

async function useNewImage(t: Test, bench: Bench): Promise<void> {
  await bench.image('golden.img', 4 * MIB, 4 * MIB);
  t.equal(await bench.succeed(['create', '--format', 'qcow2', '--backing', 'golden.img', 'clone.qcow2']), '');
  const twice = await bench.fusetap(['create', '--format', 'qcow2', '--backing', 'golden.img', 'clone.qcow2']);
  t.match(twice, { status: 4, stderr: /clone\.qcow2 is there already.*--force/ });
  const vbd = await bench.attach('qcow2:clone.qcow2');
  await bench.sh(
    'cmp "$1" golden.img && tr "\\0" A < /dev/zero | dd of="$1" bs=64k count=3 seek=1 iflag=fullblock conv=notrunc status=none',
    vbd,
  );
  await bench.detach('--all');
  t.equal((await bench.fusetap(['check', 'clone.qcow2'])).status, 0);
  t.match(qemuCheck(bench.path('clone.qcow2')), { status: 0 });
  qemuIo('qcow2', bench.path('clone.qcow2'), 'read -P 65 64k 192k');
  const { chain } = JSON.parse(await bench.succeed(['info', '--json', 'clone.qcow2'])) as Info;
  t.match(chain, [{ name: 'golden.img', path: bench.path('golden.img'), error: null }]);
  t.match(await bench.succeed(['info', 'clone.qcow2']), /^backing +golden\.img \(raw, 4M\): \/.*\/golden\.img$/m);
}

async function useNewVmdk(t: Test, bench: Bench): Promise<void> {
  await bench.succeed(['create', '--format', 'vmdk', 'base.vmdk', '40M']);
  const base = bench.path('base.vmdk');
  const vbd = await bench.attach('vmdk:base.vmdk');
  const write =
    'tr "\\0" "$2" < /dev/zero | dd of="$1" bs=64k count=3 seek="$3" iflag=fullblock conv=notrunc,fsync status=none';
  for (const [index, letter] of ['A', 'B', 'C'].entries()) {
    await bench.sh(write, vbd, letter, `${index * 250}`);
    await replaceServer(bench);
  }
  t.match(await bench.fusetap(['attach', 'vmdk:base.vmdk']), { status: 4 });
  t.throws(() => qemuIo('vmdk', base, 'read 0 512'), 'QEMU does not open it meanwhile');
  t.match(await bench.fusetap(['info', 'base.vmdk']), { stdout: /^unclean +yes$/m });
  await bench.detach('--all');
  t.match(await bench.succeed(['check', 'base.vmdk']), /^no fault was found$/m);
  t.match(qemuImg('check', '-f', 'vmdk', base), /No errors/);
  for (const [index, byte] of [65, 66, 67].entries()) qemuIo('vmdk', base, `read -P ${byte} ${index * 250 * 64}k 192k`);
  const over = ['create', '--format', 'vmdk', '--backing', 'base.vmdk', '--backing-format', 'vmdk', 'top.vmdk'];
  await bench.succeed(over);
  const top = await bench.attach('vmdk:top.vmdk');
  await bench.sh(write, top, 'D', '1');
  await bench.detach('--all');
  qemuIo('vmdk', bench.path('top.vmdk'), 'read -P 65 0 64k');
  qemuIo('vmdk', bench.path('top.vmdk'), 'read -P 68 64k 192k');
  await bench.sh(write, await bench.attach('vmdk:base.vmdk'), 'E', '0');
  await bench.detach('--all');
  t.match(await bench.fusetap(['attach', 'vmdk:top.vmdk']), { status: 1, stderr: /content id/ });
  t.match(await bench.fusetap(['attach', 'vmdk:base.vmdk,xvda,w!']), { status: 2, stderr: /only one writer/ });
}

async function useAttachedImage(t: Test, bench: Bench): Promise<void> {
  await bench.succeed(['create', '--format', 'qcow2', 'a.qcow2', '8M']);
  await bench.attach('qcow2:a.qcow2');
  for (const words of [['check'], ['check', '--repair', 'leaks']]) {
    const refused = await bench.fusetap([...words, '--json', 'a.qcow2']);
    t.match(refused, { status: 1, stderr: /a\.qcow2 is attached with mode w by .*bus 0.*xvda/ });
    t.match(JSON.parse(refused.stdout), { error: { code: 'BUSY', holders: [{ bus: '0', vdev: 'xvda' }] } });
  }
  t.match(await bench.fusetap(['info', 'a.qcow2']), {
    status: 0,
    stdout: /^disk +8M/m,
    stderr: /xvda.*may be changing/,
  });
  t.equal((await bench.fusetap(['info', '-q', 'a.qcow2'])).stderr, '');
  const detach = /fusetap detach --bus 0 xvda$/m;
  t.match(await bench.fusetap(['create', '--force', 'a.qcow2', '1M']), { status: 4, stderr: detach });
  const over = ['create', '--format', 'qcow2', '--backing', 'a.qcow2', '--backing-format', 'qcow2', 'b.qcow2'];
  t.match(await bench.fusetap(over), { status: 4, stderr: /pause it .*: fusetap pause --bus 0 xvda$/m });
  await bench.detach('--all');
  await bench.attach('qcow2:a.qcow2', 'xvda', 'r');
  t.equal((await bench.fusetap(['check', 'a.qcow2'])).status, 0, 'a reader does not matter');
  t.equal((await bench.fusetap(over)).status, 0);
  await bench.detach('--all');
}

async function snapshotPaused(t: Test, bench: Bench): Promise<void> {
  const place = await resolveBus('0', bench.runtimeDir);
  for (const format of ['vhd', 'qcow2']) {
    const [base, fresh] = [`base.${format}`, `new.${format}`];
    await bench.succeed(['create', '--format', format, base, '8M']);
    const vbd = await bench.attach(`${format}:${base}`);
    await bench.sh('printf before | dd of="$1" bs=1M seek=3 conv=notrunc status=none', vbd);
    const words = ['create', '--format', format, '--backing', base, '--backing-format', format, fresh];
    const refuse = async (state: string): Promise<void> => {
      const refused = await bench.fusetap(words);
      const line = /^fusetap: \/\S+ is attached with mode w by bus 0 as xvda: pause it [^\n]+ --bus 0 xvda\n$/;
      t.match(refused, { status: 4, stderr: line }, `${format}: ${state}`);
    };
    await refuse('it runs');
    const query = { copy: nameOfCopy() };
    await call(place, 'POST /vbds/{vdev}/pause', { vdev: 'xvda', query });
    await refuse('it is paused for a copy, and goes on by itself');
    await bench.succeed(['pause', 'xvda']);
    await call(place, 'POST /vbds/{vdev}/resume', { vdev: 'xvda', query });
    const larger = [...words.slice(0, -1), 'larger', '16M'];
    await bench.succeed(larger);
    t.match(await bench.fusetap(['swap', 'xvda', `${format}:larger`]), { status: 2, stderr: /16777216/ });
    const read = await bench.fusetap(['attach', `${format}:${base}`, 'xvdb', 'r']);
    t.match(read, { status: 4, stderr: /with mode w by bus 0 as xvda/ }, 'a failed swap leaves the claim as it was');
    await bench.sh('rm larger');
    await bench.succeed(words);
    await bench.succeed(['swap', 'xvda', `${format}:${fresh}`]);
    await bench.succeed(['resume', 'xvda']);
    t.equal(await bench.sh('dd if="$1" bs=1M skip=3 count=1 status=none | head -c 6', vbd), 'before');
    await bench.sh('printf after- | dd of="$1" bs=1M seek=3 conv=notrunc status=none', vbd);
    t.match(await bench.list(), [{ image: bench.path(fresh), changedOutside: false, state: 'running' }]);
    const other = await bench.attach(`${format}:${base}`, 'xvdb', 'r');
    t.equal(await bench.sh('dd if="$1" bs=1M skip=3 count=1 status=none | head -c 6', other), 'before');
    t.equal((await bench.fusetap(['attach', `${format}:${base}`, 'xvdc', 'w'])).status, 4, 'the base is read');
    await bench.detach('xvda');
    await bench.detach('xvdb');
    for (const image of [base, fresh]) t.equal((await bench.fusetap(['check', image])).status, 0, image);
  }
}

async function makeDirty(bench: Bench, name: string): Promise<void> {
  qemuImg('create', '-q', '-f', 'qcow2', '-o', 'lazy_refcounts=on', bench.path(name), '8M');
  const commands = ['write -P 5 1M 1M', 'flush', 'abort'].flatMap((command) => ['-c', command]);
  spawnSync('qemu-io', ['-f', 'qcow2', ...commands, bench.path(name)]);
}

async function repairDirtyImage(t: Test, bench: Bench): Promise<void> {
  await makeDirty(bench, 'a.qcow2');
  t.match(await bench.succeed(['info', 'a.qcow2']), /^dirty +yes$/m);
  const found = await bench.fusetap(['check', 'a.qcow2']);
  t.match(found, { status: 2, stdout: /^corrupt: the refcount of cluster .*not closed cleanly/ms });
  const repaired = await bench.fusetap(['check', '--repair', 'leaks', 'a.qcow2']);
  t.match(repaired, { status: 0, stdout: /^no fault was found$/m, stderr: '' });
  t.match(qemuCheck(bench.path('a.qcow2')), { status: 0 });
  qemuIo('qcow2', bench.path('a.qcow2'), 'read -P 5 1M 1M');
  await makeDirty(bench, 'b.qcow2');
  const attached = await bench.fusetap(['attach', 'qcow2:b.qcow2']);
  t.match(attached, { status: 0, stderr: /not closed cleanly: its refcounts were counted, and made anew/ });
  await bench.detach('--all');
  t.match(await bench.fusetap(['check', 'b.qcow2']), { status: 0, stderr: '' });
}

async function tellFaults(t: Test, bench: Bench): Promise<void> {
  await bench.succeed(['create', '--format', 'qcow2', 'a.qcow2', '8M']);
  const path = bench.path('a.qcow2');
  qemuIo('qcow2', path, 'write 0 1M');
  // the refcount of cluster 30, which nobody uses
  await bench.sh('printf "\\0\\1" | dd of="$1" bs=1 seek=$((3 * 65536 + 60)) conv=notrunc status=none', path);
  await bench.sh('truncate -s 4M "$1"', path);
  t.match(await bench.fusetap(['check', 'a.qcow2']), {
    status: 3,
    stdout: /^leaked: 65536 bytes at byte 1966080\n1 leaked cluster \(64K\)$/m,
  });
  t.match(await bench.fusetap(['check', '--repair', 'leaks', 'a.qcow2']), {
    status: 0,
    stdout: /^1 leaked cluster freed$/m,
  });
  // the refcount of the L1 table
  await bench.sh('printf "\\0\\0" | dd of="$1" bs=1 seek=$((3 * 65536 + 2)) conv=notrunc status=none', path);
  const corrupt = await bench.fusetap(['check', '--repair', 'leaks', 'a.qcow2']);
  t.match(corrupt, {
    status: 2,
    stdout: /^corrupt: the refcount of cluster 1 is 0, but it has 1 reference$/m,
    stderr: /^fusetap: nothing was repaired: /,
  });
  t.match(JSON.parse((await bench.fusetap(['check', '--json', 'a.qcow2'])).stdout), { corruptionCount: 1 });
  const attached = await bench.fusetap(['attach', 'qcow2:a.qcow2']);
  t.match(attached, { status: 5, stderr: /damaged: the refcount of cluster 1/ });
}

async function tellWrongWords(t: Test, bench: Bench): Promise<void> {
  await bench.succeed(['create', '--format', 'qcow2', 'k.qcow2', '8M']);
  t.match(await bench.fusetap(['check', 'vhd:k.qcow2']), { status: 1, stderr: /k\.qcow2 is a qcow2 image/ });
  t.match(await bench.fusetap(['info', 'vhd:k.qcow2']), { status: 2, stdout: '', stderr: /k\.qcow2 is a qcow2 image/ });
  await bench.succeed(['create', '--format', 'qcow2', 'co:lon.qcow2', '8M']);
  const mistaken = await bench.fusetap(['info', 'co:lon.qcow2']);
  t.match(mistaken, { status: 3, stderr: /no driver 'co': write \.\/co:lon\.qcow2$/m });
  t.equal((await bench.fusetap(['info', './co:lon.qcow2'])).status, 0);
}
