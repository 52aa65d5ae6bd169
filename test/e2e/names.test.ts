/** Disks by name: by-label and the like on real mounts, LABEL= in commands, `ls --fs`. */
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { FileNames } from '../../mount/control/interface.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { type Bench, forEachTransport, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill, killServer } from './kill-server.js';

t.setTimeout(600_000);

const MIB = 1 << 20;
const UUID = '3B1F0A52-95f0-4c3e-8d4e-0f1a2b3c4d5e';
const PROGRAMS = ['mkfs.ext4', 'mkswap', 'mkfs.fat', 'sfdisk', 'tune2fs', 'wipefs', 'losetup'];

type Story = (t: Test, bench: Bench) => Promise<void>;

const ON_BOTH: Record<string, Story> = {
  'mkfs, a new label and wipefs change the links': followWrites,
  'partitions by their names': namePartitions,
  'a disk that hangs does not hang the names of others': surviveHangingDisk,
};

const ON_KERNEL: Record<string, Story> = {
  'another server shows the same': surviveServer,
  'names in commands': acceptTags,
  'two disks with the same label': nameDuplicates,
  'mount and umount by label': mountByLabel,
  'a passed-through disk, and one that is written in another way': followUncountedWrites,
  'paused, broken and read-only disks': nameUnusualDisks,
  'of a bus without a keeper': nameOrphans,
  '200 disks': listMany,
};

forEachTransport(t, PROGRAMS, async (t, transport) => {
  for (const [name, story] of Object.entries(ON_BOTH)) {
    await t.test(name, async (t) => story(t, await openBench(t, transport)));
  }
});

onDefaultTransport(t, PROGRAMS, async (t, transport) => {
  for (const [name, story] of Object.entries(ON_KERNEL)) {
    await t.test(name, async (t) => story(t, await openBench(t, transport)));
  }
});

/** `NAME TARGET` of each link, sorted. */
async function links(bench: Bench, kind: string): Promise<string[]> {
  const directory = join(bench.runtimeDir, 'bus/0', `by-${kind}`);
  const lines = await bench.sh('cd "$1" && find . -type l -printf "%P %l\\n" | LC_ALL=C sort', directory);
  return lines === '' ? [] : lines.split('\n');
}

async function namesOf(bench: Bench): Promise<(FileNames & { duplicates: object[]; mounts: string[] })[]> {
  return JSON.parse(await bench.succeed(['ls', '--fs', '--json'])) as (FileNames & {
    duplicates: object[];
    mounts: string[];
  })[];
}

async function followWrites(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', 8 * MIB));
  t.same(await links(bench, 'label'), []);
  await bench.sh('mkfs.ext4 -q -F -L "$2" -U "$3" "$1"', vbd, 'a b/ö"', UUID);
  t.same(await links(bench, 'label'), ['a\\x20b\\x2fö\\x22 ../xvda']);
  t.same(await links(bench, 'uuid'), [`${UUID.toLowerCase()} ../xvda`]);
  await bench.sh('cmp "$1" "$2"', vbd, join(bench.runtimeDir, 'bus/0/by-label', 'a\\x20b\\x2fö\\x22'));
  await bench.sh('tune2fs -L next "$1" >&2', vbd);
  t.same(await links(bench, 'label'), ['next ../xvda']);
  t.not((await bench.try('stat "$1"/by-label/a*', join(bench.runtimeDir, 'bus/0'))).status, 0);
  await bench.sh('wipefs -qa "$1"', vbd);
  t.same([await links(bench, 'label'), await links(bench, 'uuid')], [[], []]);
  await bench.sh('mkswap -q -L .. "$1"', vbd);
  t.same(await links(bench, 'label'), ['\\x2e\\x2e ../xvda']);
  for (const script of ['mkdir x', 'rm *', 'ln -s ../xvda x', 'touch x', 'chmod 700 .']) {
    const directory = join(bench.runtimeDir, 'bus/0/by-label');
    t.not((await bench.try(`cd "$1"; ${script}`, directory)).status, 0, `not for us to change: ${script}`);
  }
  const held = await Client.open(t, bench, 'read', join(bench.runtimeDir, 'bus/0/by-label', '\\x2e\\x2e'));
  const busy = await bench.fusetap(['detach', 'xvda']);
  t.match(busy, { status: 4, stderr: new RegExp(`pid ${held.pid} `) }, 'what is open through a link is held');
  await held.release();
  await bench.detach('LABEL=..');
  t.same(await bench.traces(), []);
}

async function namePartitions(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 48 * MIB);
  const table = 'label: gpt\\nname="EFI system partition", size=40960\\nname=root\\n';
  await bench.sh(`printf '${table}' | sfdisk -q "$1"`, image);
  const vbd = await bench.attach('--partitions', image);
  const uuids = await bench.sh('sfdisk --part-uuid "$1" 1; sfdisk --part-uuid "$1" 2', image);
  const [first, second] = uuids.toLowerCase().split('\n');
  t.same(await links(bench, 'partlabel'), ['EFI\\x20system\\x20partition ../xvda1', 'root ../xvda2']);
  t.same(await links(bench, 'partuuid'), [`${first} ../xvda1`, `${second} ../xvda2`].sort());
  await bench.sh('mkfs.fat -n BOOT "$1" >&2; mkfs.ext4 -q -L system "$2"', `${vbd}1`, `${vbd}2`);
  t.same(await links(bench, 'label'), ['BOOT ../xvda1', 'system ../xvda2']);
  await bench.sh('sfdisk -q --part-label "$1" 2 other', vbd);
  t.same(await links(bench, 'partlabel'), ['EFI\\x20system\\x20partition ../xvda1', 'other ../xvda2']);
  const [disk, boot] = await namesOf(bench);
  t.match(disk, { vdev: 'xvda', type: null, partlabel: null }, 'the disk itself has no name');
  t.match(boot, { vdev: 'xvda1', type: 'vfat', label: 'BOOT', partlabel: 'EFI system partition', partuuid: first });
  t.match(await bench.succeed(['show', 'PARTLABEL="EFI system partition"']), /^vdev +xvda$/m);
  t.match(await bench.fusetap(['detach', 'LABEL=BOOT']), { status: 2, stderr: /xvda1 .*is a partition of xvda/ });
}

async function surviveHangingDisk(t: Test, bench: Bench): Promise<void> {
  const [slow, quick] = [await bench.image('slow.img', MIB), await bench.image('quick.img', MIB)];
  await bench.sh('mkswap -q -L slow "$1"; mkswap -q -L quick "$2"', slow, quick);
  await bench.attach('--filter', 'delay=8000', slow);
  await bench.attach(quick);
  t.same(await links(bench, 'label'), ['quick ../xvdb']);
  const refusal = await bench.fusetap(['show', 'LABEL=quick']);
  t.match(refusal, { status: 4, stderr: /another disk may have it too: xvda of bus 0 cannot be read now/ });
  t.match(await bench.succeed(['show', join(bench.runtimeDir, 'bus/0/by-label/quick')]), /^vdev +xvdb$/m);
  // each read of the other waits for eight seconds
  await bench.succeed(['stop', '--force']);
}

async function surviveServer(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', MIB));
  await bench.sh('mkswap -q -L one "$1"', vbd);
  const held = await Client.open(t, bench, 'path', join(bench.runtimeDir, 'bus/0/by-label'));
  for (let i = 0; i < 3; i++) {
    t.same(await links(bench, 'label'), ['one ../xvda']);
    await killServer(bench);
  }
  t.same(await links(bench, 'label'), ['one ../xvda'], 'the next server reads them anew');
  await eventually('another server', 10_000, async () => (await busInfo(bench)).state === 'running');
  await bench.succeed(['upgrade']);
  await bench.sh('mkswap -q -L two "$1"', vbd);
  t.same(await links(bench, 'label'), ['two ../xvda']);
  await held.release();
}

async function acceptTags(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 8 * MIB);
  await bench.sh('mkfs.ext4 -q -F -L "my disk" -U "$2" "$1"', image, UUID);
  const vbd = await bench.attach('--bus', 'two', image);
  const words = ['LABEL=my disk', 'LABEL="my disk"', "LABEL='my disk'", 'LABEL=my\\x20disk', `UUID=${UUID}`];
  for (const word of [...words, `UUID=${UUID.toUpperCase()}`, join(vbd, '../by-label/my\\x20disk')]) {
    t.match(await bench.succeed(['show', word]), /^bus +two\nvdev +xvda$/m, word);
  }
  t.match(await bench.fusetap(['show', 'LABEL=My disk']), { status: 3, stderr: /has 'LABEL=My disk'.*ls --fs/ });
  t.match(await bench.fusetap(['show', 'LABEL=']), { status: 3 });
  t.match(await bench.fusetap(['show', '--bus', '0', 'LABEL=my disk']), { status: 3 });
  t.match(await bench.succeed(['stats', 'LABEL=my disk']), /^two +xvda +read/m);
  t.match(JSON.parse(await bench.succeed(['map', '--json', 'LABEL=my disk'])), [{ start: 0 }]);
  await bench.succeed(['pause', 'LABEL=my disk']);
  await bench.succeed(['resume', 'LABEL=my disk']);
  const refused = await bench.fusetap(['attach', 'LABEL=my disk']);
  t.match(refused, { status: 2, stderr: /'LABEL=my disk' is no image: it names a disk that is attached already/ });
  await bench.sh('cp "$1" LABEL=x', image);
  await bench.attach('LABEL=x');
  t.equal((await bench.list()).length, 2, 'a file of such a name is attached as ever');
  await bench.detach('./LABEL=x');
  await bench.detach('LABEL=my disk');
  t.same(await bench.traces(), []);
}

async function nameDuplicates(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  await bench.sh('mkswap -q -L same "$1"; cp "$1" copy.img', image);
  await bench.attach('copy.img', 'xvdb');
  await bench.attach(image, 'xvda');
  t.same(await links(bench, 'label'), ['same ../xvda'], 'the lowest slot has the link');
  const refused = await bench.fusetap(['detach', 'LABEL=same']);
  t.match(refused, {
    status: 2,
    stderr: /several disks have 'LABEL=same': xvdb of bus 0, xvda of bus 0|xvda of bus 0, xvdb/,
  });
  t.match(await bench.succeed(['show', join(bench.runtimeDir, 'bus/0/by-label/same')]), /^vdev +xvda$/m);
  const { stdout, stderr } = await bench.fusetap(['ls', '--fs']);
  t.match(stdout, /^BUS +VDEV +FSTYPE +LABEL +UUID +PARTLABEL +LOOP +MOUNTED\n0 +xvda +swap +same /);
  t.match(stderr, /LABEL=same is on xvda and xvdb; by-label leads to xvda/);
  t.match(
    await bench.succeed(['show', 'xvdb']),
    /^duplicate +LABEL=same is on xvda and xvdb; by-label leads to xvda$/m,
  );
  const [first] = await namesOf(bench);
  const paths = [join(bench.runtimeDir, 'bus/0/xvdb')];
  t.match(first?.duplicates, [{ name: 'LABEL=same', paths }, { paths }]);
  await bench.detach('xvda');
  t.same(await links(bench, 'label'), ['same ../xvdb']);
}

async function mountByLabel(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 16 * MIB);
  await bench.sh('mkfs.ext4 -q -F -L data "$1"', image);
  await bench.attach(image);
  const mnt = await bench.makeDirectory('mnt');
  await bench.succeed(['mount', 'LABEL=data', mnt]);
  t.match(await namesOf(bench), [{ label: 'data', mounts: [mnt] }]);
  await bench.sh('echo text > "$1/file"', mnt);
  await bench.succeed(['umount', 'LABEL=data']);
  await bench.attach('ram:disk.img');
  await bench.sh('mount "$1" "$2"; cat "$2/file"; umount "$2"', join(bench.runtimeDir, 'bus/0/by-label/data'), mnt);
  t.match(await bench.fusetap(['mount', '--snapshot', 'LABEL=data', mnt]), { status: 2 });
  t.match(await bench.fusetap(['mount', 'LABEL=none', mnt]), { status: 3, stderr: /nothing that is attached has/ });
}

async function followUncountedWrites(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const ram = await bench.attach('--share', 'gold', `ram:${image}`);
  await bench.attach('--share', 'gold', `ram:${image}`, 'xvdb');
  t.same(await links(bench, 'label'), []);
  for (const label of ['first', 'second', 'third']) {
    await bench.sh('mkswap -q -L "$2" "$1"', ram, label);
    t.same(
      await links(bench, 'label'),
      [`${label} ../xvda`],
      'the kernel writes by itself, the time of the file tells',
    );
    t.match(await namesOf(bench), [{ label }, { label }], 'of both vbds of the memory');
  }
  const file = await bench.attach(await bench.image('file.img', MIB), 'xvdc', 'w!');
  t.notOk((await links(bench, 'label')).includes('outside ../xvdc'));
  await bench.sh('mkswap -q -L outside "$1"', bench.path('file.img'));
  const isSeen = async (): Promise<boolean> => (await links(bench, 'label')).includes('outside ../xvdc');
  await eventually('a change of the image by others is seen within a second', 20_000, isSeen);
  await bench.sh('cat "$1" > /dev/null', file);
}

async function nameUnusualDisks(t: Test, bench: Bench): Promise<void> {
  const [a, b, c] = [await bench.image('a.img', MIB), await bench.image('b.img', MIB), await bench.image('c.img', MIB)];
  await bench.sh('mkswap -q -L a "$1"; mkswap -q -L b "$2"; mkswap -q -L c "$3"', a, b, c);
  await bench.attach(a, 'xvda', 'r');
  await bench.attach(b, 'xvdb');
  await bench.attach('--filter', 'error=read:1-1T', c, 'xvdc');
  t.same(await links(bench, 'label'), ['a ../xvda', 'b ../xvdb'], 'one that cannot be read has no name');
  await bench.succeed(['pause', 'xvdb']);
  t.same(await links(bench, 'label'), ['a ../xvda', 'b ../xvdb'], 'a paused one keeps its name');
  await bench.sh('mkswap -q -L fresh "$1"', await bench.image('new.img', MIB));
  await bench.succeed(['swap', 'xvdb', 'new.img']);
  await bench.succeed(['resume', 'xvdb']);
  t.same(await links(bench, 'label'), ['a ../xvda', 'fresh ../xvdb'], 'a swap brings another name');
}

async function nameOrphans(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  await bench.sh('mkswap -q -L lonely "$1"', image);
  await bench.attach(image);
  const { keeperPid } = await busInfo(bench);
  kill(keeperPid ?? 0);
  await eventually('an orphan', 20_000, async () => {
    return (await busInfo(bench).catch(() => null))?.state === 'orphaned';
  });
  t.same(await links(bench, 'label'), ['lonely ../xvda']);
  t.match(await bench.succeed(['show', 'LABEL=lonely']), /^state +orphaned$/m);
  await bench.detach('LABEL=lonely');
}

async function listMany(t: Test, bench: Bench): Promise<void> {
  const COUNT = 200;
  const images = Array.from({ length: COUNT }, (_, i) => `n${i}.img`);
  await bench.sh(
    'truncate -s 1M base.img; mkswap -q base.img; i=0; while [ $i -lt $1 ]; do cp base.img n$i.img; swaplabel -L disk$i n$i.img; i=$((i + 1)); done',
    String(COUNT),
  );
  await bench.succeed(['attach', ...images]);
  t.equal((await links(bench, 'label')).length, COUNT);
  const begun = performance.now();
  await bench.sh('ls -l "$1" > /dev/null', join(bench.runtimeDir, 'bus/0/by-label'));
  t.comment(`ls -l of ${COUNT} links: ${Math.round(performance.now() - begun)} ms`);
  t.ok(performance.now() - begun < 20_000, 'it is quick');
  t.equal((await namesOf(bench)).length, COUNT);
  await bench.detach('LABEL=disk77');
  t.equal((await links(bench, 'label')).length, COUNT - 1);
}
