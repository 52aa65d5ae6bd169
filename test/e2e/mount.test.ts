/**
 * From images to their files and back: `fusetap mount`, `fusetap umount`, and the helpers of mount(8); as root by loop
 * devices, as a user by FUSE programs.
 */
import { open, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { putMbr } from '../drivers/partitions/tables.js';
import { Client } from './client.js';
import { collect, eventually, isInstalled } from './command.js';
import { type Bench, forEachWay, JUST_USER, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill } from './kill-server.js';
import { USER } from './runners.js';

t.setTimeout(400_000);

const HELPERS = fileURLToPath(new URL('../../cli/mount-helper/', import.meta.url));
const MIB = 1 << 20;

type Story = (t: Test, bench: Bench) => Promise<void>;

const AS_ROOT: Record<string, Story> = {
  'ext4, there and back': mountAndBack,
  'a failure half way leaves nothing': failHalfWay,
  'a partition': mountPartition,
  'mount(8) and umount(8)': mountByHelper,
  'one of several mounts': unmountOneOfSeveral,
  'a partition of a loop device': unmountLoopPartition,
  'umount by a link, and not by a made-up source': unmountByLinkAndNotByLie,
  'an umount that takes long': unmountSlowly,
  'a loop device that was left read-only': mountOnReadOnlyLoop,
  'an umount from a dead bus': unmountFromDeadBus,
  'read-only, though it was to be written': mountWriteProtected,
};

onDefaultTransport(t, ['losetup', 'mkfs.ext4', 'debugfs'], async (t, transport) => {
  for (const [name, story] of Object.entries(AS_ROOT)) {
    await t.test(name, async (t) => story(t, await openBench(t, transport)));
  }
  await t.test('xfs', { skip: isInstalled('mkfs.xfs') ? false : 'mkfs.xfs is not installed' }, async (t) =>
    mountXfs(t, await openBench(t, transport)),
  );
});

forEachWay(t, JUST_USER, async (t, transport) => {
  const missing = ['fuse2fs', 'squashfuse', 'mksquashfs', 'mkfs.ext4'].filter((program) => !isInstalled(program));
  const skip = missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
  await t.test('by FUSE programs', { skip }, async (t) => mountAsUser(t, await openBench(t, transport)));
});

/** An image with an ext4. */
async function ext4(bench: Bench, name = 'disk.img'): Promise<string> {
  const image = await bench.image(name, 16 * MIB);
  await bench.sh('mkfs.ext4 -q -F "$1"', image);
  return image;
}

/** Whether a file of that name is in the root of the ext4 in an image. */
async function holds(bench: Bench, image: string, name: string): Promise<boolean> {
  return (await bench.sh('debugfs -R "ls -p" "$1" 2>/dev/null', image)).includes(`/${name}/`);
}

/** Nothing of buses, mounts and loop devices. */
async function isClear(t: Test, bench: Bench): Promise<void> {
  t.same(await bench.traces(), []);
  t.same(await bench.loops(), []);
}

async function mountAndBack(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const at = await bench.makeDirectory('mnt');
  t.equal(await bench.succeed(['mount', image, at]), '', 'prints nothing');
  t.match(await bench.list(), [{ image, driver: 'aio', bus: 'mounts' }]);
  await bench.sh('echo 1 > "$1/written"', at);
  t.equal(await bench.succeed(['__complete', '--', 'umount', '/']), `words\n\n/\n${at}\t`, 'umount completes it');

  const busy = await bench.execute('sh', [
    '-c',
    'cd "$1" && shift && exec "$@"',
    'sh',
    at,
    ...cli(bench),
    'umount',
    at,
  ]);
  t.match(busy, { status: 4, stderr: /^fusetap: cannot unmount [^\n]*busy[^\n]*fuser -vm[^\n]*\n$/ });
  const json = JSON.parse(await bench.succeed(['umount', at, '--json'])) as { image: string }[];
  t.match(json, [{ image }]);
  await isClear(t, bench);
  t.ok(await holds(bench, image, 'written'));

  const mounted = JSON.parse(await bench.succeed(['mount', '-r', image, at, '--json'])) as Record<string, unknown>;
  t.match(mounted, { directory: at, device: /^\/dev\/loop/, vbd: { mode: 'r' } });
  const readAhead = await bench.sh('cat /sys/block/"$(basename "$1")"/queue/read_ahead_kb', String(mounted.device));
  t.ok(Number(readAhead) >= 512, 'large files are read far ahead');
  t.match(await bench.try('touch "$1/more"', at), { status: 1, stderr: /Read-only/ });
  await bench.succeed(['umount', at]);

  await bench.succeed(['mount', '--bus', 'other', '-o', 'noatime', `ram:${image}`, at]);
  t.match(await bench.list(), [{ bus: 'other', driver: 'ram' }]);
  t.match(await readFile('/proc/self/mountinfo', 'utf8'), new RegExp(` ${at} rw,noatime `));
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
}

function cli(bench: Bench): string[] {
  return [process.execPath, bench.program];
}

async function failHalfWay(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('blank.img', MIB);
  const at = await bench.makeDirectory('mnt');
  const expected: [words: string[], status: number, stderr: RegExp][] = [
    [[image, at], 1, /cannot mount [^\n]*--partition N/],
    [[image, at, '--partition', '1'], 3, /no partition 1 \(there is no partition table\)/],
    [[image, bench.path('nowhere')], 3, /mkdir -p/],
    [[image, image], 2, /it is not a directory/],
    [[image, at, '--partition', '0'], 2, /number of a partition/],
    [[image, at, '--partition', 'root'], 3, /no partition 'root'/],
    [[bench.path('missing.img'), at], 3, /missing\.img/],
  ];
  for (const [words, status, stderr] of expected) {
    t.match(await bench.fusetap(['mount', ...words]), { status, stderr }, words.slice(1).join(' '));
    await isClear(t, bench);
  }
  t.match(await bench.fusetap(['umount', at]), { status: 3, stderr: /nothing is mounted there/ });
  await bench.sh('mount -t tmpfs none "$1"', at);
  t.match(await bench.fusetap(['umount', at]), { status: 3, stderr: /not of a vbd/ });
  await bench.sh('umount "$1"', at);
}

/** A directory by a link, which `mount` takes, and a source that is a lie, which any user may make up. */
async function unmountByLinkAndNotByLie(t: Test, bench: Bench): Promise<void> {
  const at = await bench.makeDirectory('mnt');
  await bench.sh('mkfs.ext4 -q -F "$1"; ln -s mnt link; ln -s link again', await bench.image('fs.img', 8 * MIB));
  await bench.succeed(['mount', 'fs.img', bench.path('again')]);
  await bench.succeed(['umount', bench.path('again')]);
  await isClear(t, bench);

  const vbd = await bench.attach(bench.path('fs.img'));
  if (USER.whyNot() === false && isInstalled('squashfuse') && isInstalled('mksquashfs')) {
    await lieOfSource(t, bench, vbd, at);
  }
  await bench.detach('xvda');
}

async function lieOfSource(t: Test, bench: Bench, vbd: string, at: string): Promise<void> {
  const { words, give } = await USER.enter();
  await bench.sh('mkdir files; echo x > files/x; mksquashfs files lie.sqfs -quiet -no-progress > out; chmod 755 .');
  for (const path of [at, bench.path('lie.sqfs')]) give(path);
  const lie = ['-o', `fsname=${vbd}`, bench.path('lie.sqfs'), at];
  t.match(await bench.execute(...words(bench.directory, 'squashfuse', lie)), { status: 0 });
  t.match(await bench.fusetap(['umount', at]), { status: 3, stderr: /not of a vbd/ });
  t.match(await bench.list(), [{ vdev: 'xvda' }], 'what is attached stays');
  await bench.sh('umount "$1"', at);
}

async function mountPartition(t: Test, bench: Bench): Promise<void> {
  const disk = await partitioned(bench);
  const at = await bench.makeDirectory('mnt');
  t.match(await bench.fusetap(['mount', disk, at, '--partition', '3']), { status: 3, stderr: /it has 2/ });
  await isClear(t, bench);
  await bench.succeed(['mount', disk, at, '--partition', '2']);
  await bench.sh('test -d "$1/lost+found"; echo 1 > "$1/written"', at);
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
  await bench.sh('dd if="$1" of=part.img bs=1M skip=1 status=none', disk);
  t.ok(await holds(bench, bench.path('part.img'), 'written'));
}

/** A disk whose second partition, from its first MiB on, is an ext4. */
async function partitioned(bench: Bench): Promise<string> {
  const part = await ext4(bench, 'part.img');
  const disk = await bench.image('partitioned.img', 17 * MIB);
  await bench.sh('dd if="$1" of="$2" bs=1M seek=1 conv=notrunc status=none', part, disk);
  const file = await open(disk, 'r+');
  // the first entry is empty
  const entries = [
    { type: 0, start: 0, count: 0 },
    { type: 0x83, start: MIB / 512, count: (16 * MIB) / 512 },
  ];
  await file.write(putMbr(Buffer.alloc(512), 0, entries), 0, 512, 0).finally(() => file.close());
  return disk;
}

async function unmountOneOfSeveral(t: Test, bench: Bench): Promise<void> {
  const image = await partitioned(bench);
  const [at, other] = [await bench.makeDirectory('mnt'), await bench.makeDirectory('other')];
  await bench.attach('--partitions', image);
  const path = `${bench.runtimeDir}/bus/0/xvda2`;
  await bench.sh('mount -o loop "$1" "$2"; mount --bind "$2" "$3"', path, at, other);
  const bind = await bench.fusetap(['umount', '-v', other, '--json']);
  t.match(bind, { status: 0, stderr: /xvda of bus 0 stays attached: it is in use by \S+ mounted on \S+mnt$/m });
  t.same(JSON.parse(bind.stdout), [], 'nothing went');
  await bench.sh('echo 1 > "$1/written"', at);

  await bench.sh('mkfs.ext4 -q plain.img 8M; mkdir "$1/boot"', at);
  const plain = await bench.attach('plain.img');
  await bench.sh('mount -o loop "$1" "$2/boot"', plain, at);
  t.match(await bench.fusetap(['umount', at]), { status: 4, stderr: /busy/ }, 'one with another below is in use');
  await bench.succeed(['umount', `${at}/boot`]);
  t.match(await bench.list(), [{ vdev: 'xvda' }], 'that went, with its vbd');

  const client = await Client.open(t, bench, 'read', path);
  const held = await bench.fusetap(['umount', at]);
  t.match(held, { status: 0, stderr: /xvda of bus 0 stays attached: it is in use by pid \d+ \(perl\)/ }, 'a program');
  t.same(await bench.loops(), [], 'it is unmounted');
  await client.release();
  await bench.detach('xvda');
  await isClear(t, bench);
}

/** A device that somebody made by hand stays, and so does the vbd that it is on. */
async function unmountLoopPartition(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await partitioned(bench));
  const at = await bench.makeDirectory('mnt');
  const loop = await bench.sh('losetup --find --partscan --show "$1"', vbd);
  // not every kernel knows tables of this kind, and not every machine makes nodes in /dev
  const part = `/sys/class/block/${loop.slice('/dev/'.length)}p2`;
  await bench.sh('test -e "$2" || addpart "$1" 2 2048 32768; mknod node b $(tr : " " < "$2/dev")', loop, part);
  await bench.sh('mount node "$1"; echo 1 > "$1/written"', at);
  const kept = await bench.fusetap(['umount', '-v', at]);
  t.match(kept, { status: 0, stderr: /xvda of bus 0 stays attached: it is in use by \/dev\/loop/ });
  await bench.sh('mount node "$2"; losetup --detach "$1"', loop, at);
  t.match(
    JSON.parse(await bench.succeed(['umount', at, '--json'])),
    [{ vdev: 'xvda' }],
    'the last one takes all along',
  );
  await isClear(t, bench);
}

async function unmountSlowly(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const at = await bench.makeDirectory('mnt');
  await bench.succeed(['mount', '--bus', '0', image, at]);
  await bench.sh('head -c 1M /dev/urandom > doc; cp doc "$1/doc"', at);
  await bench.succeed(['pause', 'xvda']);
  const child = bench.startFusetap(['umount', '-v', at]);
  const end = collect(child);
  let said = '';
  child.stderr?.on('data', (text: string) => {
    said += text;
  });
  await eventually('it says what it waits for', 20_000, async () => /waiting for umount .*mnt/.test(said));
  await bench.succeed(['resume', 'xvda']);
  t.equal((await end).status, 0);
  await isClear(t, bench);
  await bench.sh('mount -o loop "$1" "$2"; cmp doc "$2/doc"; umount "$2"', image, at);
}

/** The flag stays on a device when its file is taken away. Another may take the device before us: then once more. */
async function mountOnReadOnlyLoop(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const at = await bench.makeDirectory('mnt');
  for (let attempt = 0; attempt < 10; attempt++) {
    const free = await bench.sh('device=$(losetup -f) && blockdev --setro "$device" && echo "$device"');
    const mounted = JSON.parse(await bench.succeed(['mount', image, at, '--json'])) as { device: string };
    await bench.sh('echo 1 > "$1/written"', at);
    await bench.succeed(['umount', at]);
    await bench.sh('blockdev --setrw "$1"', free);
    if (mounted.device === free) break;
  }
  await isClear(t, bench);
  t.ok(await holds(bench, image, 'written'));
}

async function unmountFromDeadBus(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const at = await bench.makeDirectory('mnt');
  await bench.succeed(['mount', image, at]);
  const { keeperPid, serverPid } = await busInfo(bench, 'mounts');
  for (const pid of [keeperPid, serverPid]) kill(pid as number);
  await eventually('their end', 20_000, async () => (await bench.busProcesses()).length === 0);
  const unmounted = await bench.fusetap(['umount', at]);
  t.match(unmounted, { status: 0, stderr: /bus mounts is dead: fusetap stop --bus mounts removes it\n$/ });
  await bench.succeed(['mount', image, at]);
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
}

/** mount(8) exits with 0 then, and says nothing of a file system that is read-only by itself. */
async function mountWriteProtected(t: Test, bench: Bench): Promise<void> {
  if (!isInstalled('mksquashfs')) return;
  const at = await bench.makeDirectory('mnt');
  await bench.sh('mkdir files; echo x > files/x; mksquashfs files fs.sqfs -quiet -no-progress > out');
  const mounted = await bench.fusetap(['mount', 'fs.sqfs', at]);
  t.match(mounted, {
    status: 0,
    stdout: '',
    stderr: /^fusetap: [^\n]*mnt is mounted read-only: squashfs cannot be written\n$/,
  });
  await bench.succeed(['umount', at]);
  t.match(await bench.fusetap(['mount', '--read-only', 'fs.sqfs', at]), { status: 0, stderr: '' }, 'as it was wanted');
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
}

async function mountByHelper(t: Test, bench: Bench): Promise<void> {
  const image = await partitioned(bench);
  const at = await bench.makeDirectory('mnt');
  const helper = (name: string, ...words: string[]) =>
    bench.execute(process.execPath, [`${HELPERS}${name}.js`, ...words]);
  // as mount(8) and umount(8) call them
  t.match(await helper('mount', image, at, '-o', 'rw,partition=2,noatime,nofail'), { status: 0, stdout: '' });
  t.match(await readFile('/proc/self/mountinfo', 'utf8'), new RegExp(` ${at} rw,noatime [^\\n]* ext4 `));
  t.match(await helper('umount', at, '-l'), { status: 0 });
  await isClear(t, bench);
  t.match(await helper('mount', image), { status: 2, stderr: /SPEC DIR/ });
}

async function mountXfs(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('xfs.img', 320 * MIB);
  const at = await bench.makeDirectory('mnt');
  await bench.sh('mkfs.xfs -q "$1"', image);
  await bench.succeed(['mount', '-t', 'xfs', image, at]);
  await bench.sh('echo 1 > "$1/written"', at);
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
  await bench.succeed(['mount', '-o', 'ro,norecovery', image, at]);
  t.equal(await bench.sh('cat "$1/written"', at), '1');
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
}

async function mountAsUser(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const at = await bench.makeDirectory('mnt');
  const mounted = JSON.parse(await bench.succeed(['mount', image, at, '--json'])) as Record<string, unknown>;
  t.match(mounted, { directory: at, device: null, vbd: { image } });
  await bench.sh('echo 1 > "$1/written"', at);
  await bench.succeed(['umount', at]);
  await isClear(t, bench);
  t.ok(await holds(bench, image, 'written'));

  await bench.sh('mkdir tree; echo 2 > tree/file; mksquashfs tree packed.img -quiet -no-progress > out');
  t.match(await bench.fusetap(['mount', 'packed.img', at]), {
    status: 0,
    stderr: /mounted read-only: squashfs cannot be written/,
  });
  await bench.succeed(['umount', at]);
  await bench.succeed(['mount', '-r', 'packed.img', at]);
  t.equal(await bench.sh('cat "$1/file"', at), '2');
  await bench.succeed(['umount', at]);
  await refuseWhatWasNotMounted(t, bench, { image, at });
  const blank = await bench.image('blank.img', MIB);
  t.match(await bench.fusetap(['mount', blank, at]), { status: 2, stderr: /blkid finds none that it knows/ });
  t.match(await bench.fusetap(['mount', '-t', 'xfs', blank, at]), { status: 6, stderr: /only root can mount xfs/ });
  await isClear(t, bench);
}

/** fuse2fs exits with 0 also where it mounted nothing. */
async function refuseWhatWasNotMounted(t: Test, bench: Bench, { image, at }: Mounted): Promise<void> {
  await bench.sh('echo x > "$1/there"', at);
  const onFull = await bench.fusetap(['mount', image, at]);
  if (onFull.status === 0) await bench.succeed(['umount', at]);
  else t.match(onFull, { status: 1, stderr: /cannot mount [^\n]*not empty/ });
  const unknown = await bench.fusetap(['mount', '-o', 'no_such_option', image, await bench.makeDirectory('empty')]);
  t.match(unknown, { status: 1, stderr: /^fusetap: cannot mount [^\n]+\n$/ });
  await isClear(t, bench);
}

interface Mounted {
  readonly image: string;
  readonly at: string;
}
