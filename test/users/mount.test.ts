/** What people who mount disk images have asked for, of fusetap and of other programs. */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { Client } from '../e2e/client.js';
import { eventually, type Outcome } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';
import { busInfo } from '../e2e/kill-server.js';
import { ext4, MAKERS, twoPartitions } from '../e2e/mount-images.js';

t.setTimeout(400_000);

const HELPERS = fileURLToPath(new URL('../../cli/mount-helper/', import.meta.url));
const MIB = 1 << 20;

/** As mount(8) runs its helper for a line of fstab. */
function mountLine(bench: Bench, spec: string, directory: string, options: string): Promise<Outcome> {
  const words = [spec, directory, ...(options === '' ? [] : ['-o', options])];
  return bench.execute(process.execPath, [`${HELPERS}mount.js`, ...words]);
}

let count = 0;

/** Directories of these names, in a directory of their own. */
async function directories(bench: Bench, ...names: string[]): Promise<string[]> {
  const own = `d${++count}`;
  await bench.makeDirectory(own);
  return await Promise.all(names.map((name) => bench.makeDirectory(`${own}/${name}`)));
}

/** Waits until nothing is attached, and no loop device is left. */
async function isClear(t: Test, bench: Bench): Promise<void> {
  await eventually('the detach', 60_000, async () => (await busInfo(bench, 'mounts')).vbds.length === 0);
  t.same(await bench.loops(), []);
}

async function mountsOn(directory: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  return lines.filter((line) => line.split(' ')[4] === directory);
}

type Wish = (t: Test, bench: Bench) => Promise<void>;

const WISHES: Record<string, Wish> = {
  // ralphje/imagemounter #17, ryankurte/docker-rpi-emu #15
  'mounts boot and root of one Raspberry Pi image at once': async (t, bench) => {
    const [root = ''] = await directories(bench, 'root');
    const image = await twoPartitions(bench, 'pi.img');
    await bench.succeed(['mount', image, root, '--partition', '2']);
    await bench.sh('mkdir "$1/boot"', root);
    await bench.succeed(['mount', image, `${root}/boot`, '--partition', '1']);
    await bench.sh('echo 1 > "$1/boot/written"; echo 2 > "$1/written"', root);
    t.equal((await bench.list()).length, 1, 'they are one disk');
    await bench.sh('umount "$1/boot" "$1"', root);
    await isClear(t, bench);
    await bench.sh('dd if="$1" of=p1 bs=1M skip=1 count=8 status=none; e2fsck -fn p1 2>&1', image);
  },

  // moosefs #317, s3fs-fuse #981, mergerfs #1060
  'runs mount -a again, with nothing changed': async (t, bench) => {
    const [root = '', boot = '', iso = ''] = await directories(bench, 'root', 'boot', 'iso');
    const image = await twoPartitions(bench, 'pi.img');
    const other = await ext4(bench, 'ro.img');
    const all = () =>
      Promise.all([
        mountLine(bench, image, root, 'rw,partition=rootfs,nofail'),
        mountLine(bench, image, boot, 'rw,partition=first,_netdev'),
        mountLine(bench, other, iso, 'ro,x-systemd.automount'),
      ]);
    // at boot, systemd mounts all lines at once
    for (const outcome of await all()) t.match(outcome, { status: 0, stdout: '', stderr: '' });
    const before = await bench.mounts();
    for (const outcome of await all()) t.match(outcome, { status: 0, stdout: '', stderr: '' });
    t.same(await bench.mounts(), before);
    await bench.sh('umount "$@"', root, boot, iso);
    await isClear(t, bench);
  },

  // NEEO and others: everybody types `umount`
  'mounts, and ends it with a plain umount': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    const image = await ext4(bench, 'disk.img');
    for (let times = 0; times < 2; times++) {
      await bench.succeed(['mount', image, at]);
      await bench.sh('umount "$1"', at);
    }
    await isClear(t, bench);
  },

  'mounts a disk image without a word about partitions': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    const image = await ext4(bench, 'part');
    await bench.image('disk.img', 12 * MIB);
    const only = 'dd if="$1" of=disk.img bs=1M seek=1 conv=notrunc status=none; ';
    await bench.sh(`${only} printf "start=2048,size=16384\nstart=18432,type=82\n" | sfdisk -q disk.img`, image);
    await bench.succeed(['mount', 'disk.img', at]);
    await bench.sh('test -d "$1/lost+found"', at);
    await bench.succeed(['umount', 'disk.img']);
    await isClear(t, bench);

    await twoPartitions(bench, 'two.img');
    t.match(await bench.fusetap(['mount', 'two.img', at]), {
      status: 2,
      stderr: /several partitions can be mounted: 1 8M ext4 boot {2}2 8M ext4 rootfs: choose one with --partition N/,
    });
    await isClear(t, bench);
  },

  // meta-calculinux #15, 01-edu #98
  'names a partition by label, by name and by UUID': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    await twoPartitions(bench, 'pi.img');
    const uuid = '01234567-89ab-cdef-0123-456789abcdef';
    await bench.sh('loop=$(losetup -f --show -o 9M pi.img); tune2fs -U "$1" "$loop" > out; losetup -d "$loop"', uuid);
    for (const name of ['rootfs', 'second', uuid, '2']) {
      await bench.succeed(['mount', '--partition', name, 'pi.img', at]);
      t.match(await bench.list(), [{ partitions: [{ opens: 0 }, { opens: 1 }] }], name);
      await bench.succeed(['umount', at]);
    }
    const wrong = await bench.fusetap(['mount', '--partition', 'home', 'pi.img', at]);
    t.match(wrong, { status: 3, stderr: /no partition 'home': it has 1 8M ext4 boot {2}2 8M ext4 rootfs\n$/ });
    await isClear(t, bench);
  },

  'mounts all partitions below one directory': async (t, bench) => {
    const [at = '', other = ''] = await directories(bench, 'mnt', 'other');
    await twoPartitions(bench, 'pi.img');
    const told = JSON.parse(await bench.succeed(['mount', '--partitions', 'pi.img', at, '--json'])) as object;
    t.match(told, {
      mounted: [
        { directory: `${at}/p1`, partition: 1 },
        { directory: `${at}/p2`, partition: 2 },
      ],
    });
    t.match(await bench.fusetap(['mount', '--partitions', 'pi.img', other]), { status: 4, stderr: /mnt\/p1/ });
    t.equal(await bench.sh('ls "$1"', other), '', 'all or none');
    await bench.succeed(['umount', at]);
    t.equal(await bench.sh('ls "$1"', at), '', 'the directories are gone');
    await isClear(t, bench);
  },

  // the way of all tutorials; also mender-docs #723, grml-debootstrap #252
  'mounts both partitions with -o loop,offset=': async (t, bench) => {
    const [one = '', two = ''] = await directories(bench, 'one', 'two');
    await twoPartitions(bench, 'pi.img');
    await bench.succeed(['mount', '-o', `loop,offset=${MIB},sizelimit=${8 * MIB}`, 'pi.img', one]);
    await bench.succeed(['mount', '-o', `loop,offset=${9 * MIB}`, 'pi.img', two]);
    await bench.sh('touch "$1/written" "$2/written"', one, two);
    t.equal((await bench.loops()).length, 2, 'one loop device each');
    await bench.succeed(['umount', one, two]);
    await isClear(t, bench);

    await bench.sh('head -c 1M /dev/zero | cat - "$1" > inside.img', await ext4(bench, 'plain.img'));
    await bench.succeed(['mount', '--offset', '1M', 'inside.img', one]);
    t.match(await bench.list(), [{ filters: ['offset=1M'] }], 'without a table');
    await bench.succeed(['umount', one]);
    await isClear(t, bench);
  },

  'unmounts by image, device, link and vbd': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    const image = await ext4(bench, 'disk.img');
    await bench.sh('ln -s "$1" link; ln disk.img hard.img', at);
    const bus = `${bench.runtimeDir}/bus/mounts`;
    const device = async (): Promise<string> => (await bench.loops())[0] ?? '';
    for (const word of [() => image, () => 'hard.img', () => 'link', device, () => `${bus}/by-slot/51712`]) {
      await bench.succeed(['mount', image, at]);
      const gone = await bench.succeed(['umount', await word(), '--json']);
      t.match(JSON.parse(gone), [{ image }]);
    }
    t.match(await bench.fusetap(['umount', image]), { status: 3, stderr: /nothing is mounted there/ });
    await isClear(t, bench);
  },

  // mhx/dwarfs #323, apfs-fuse #98
  'mounts an image with a comma in its name, also from fstab': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    const image = await ext4(bench, 'a,b.img');
    await bench.succeed(['mount', '--image', 'a,b.img', at]);
    t.match(await mountLine(bench, image, at, 'rw'), { status: 0, stderr: '' });
    t.equal((await mountsOn(at)).length, 1);
    await bench.succeed(['umount', at]);
    t.match(await mountLine(bench, image, at, 'rw'), { status: 0, stderr: '' });
    await bench.succeed(['umount', at]);
    await isClear(t, bench);
  },

  'mounts one golden image for two jobs, each with its own copy': async (t, bench) => {
    const [one = '', two = '', boot = ''] = await directories(bench, 'one', 'two', 'boot');
    const golden = await ext4(bench, 'golden.img');
    await bench.succeed(['mount', `ram:${golden}`, one]);
    await bench.succeed(['mount', `ram:${golden}`, two]);
    await bench.sh('for n in 1 2 3 4 5 6 7 8; do echo x > "$1/f$n"; mkdir "$2/d$n"; done; sync -f "$1" "$2"', one, two);
    t.equal(await bench.sh('ls "$2" | wc -l', one, two), '9', 'neither sees what the other writes');
    t.match(await bench.fusetap(['mount', '-v', `ram:${golden}`, two]), { status: 0, stderr: /already/ });
    const paths = (await bench.list()).map(({ path }) => path);
    const open = await Promise.all(paths.map((path) => Client.open(t, bench, 'read', path)));
    await bench.sh('umount "$1" "$2"; shift 2; for vbd; do e2fsck -fn "$vbd" 2>&1; done', one, two, ...paths);
    for (const client of open) await client.release();

    await bench.succeed(['mount', '--share', 'job', `ram:${golden}`, one]);
    const again = await bench.fusetap(['mount', '--share', 'job', `ram:${golden}`, two]);
    t.match(again, { status: 4, stderr: /is mounted on \S+one already/ }, 'one memory is not mounted twice');
    await bench.succeed(['umount', one]);

    const image = await twoPartitions(bench, 'pi.img');
    await bench.succeed(['mount', '--partition', '2', `ram:${image}`, one]);
    await bench.succeed(['mount', '--partition', '1', `ram:${image}`, boot]);
    await bench.succeed(['mount', '--partition', '2', `ram:${image}`, two]);
    t.equal((await bench.list()).length, 2, 'boot and root of one job are one disk');
    await bench.succeed(['umount', one, boot, two]);
    await isClear(t, bench);
  },

  'learns why a partition is not there': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    await bench.image('cut.img', 60 * MIB);
    await bench.sh('printf "start=2048,size=8192\nstart=18432\n" | sfdisk -q cut.img; truncate -s 8M cut.img');
    t.match(await bench.fusetap(['mount', '--partition', '2', 'cut.img', at]), {
      status: 3,
      stderr: /no partition 2 \([^)]*partition 2 is left out: [^)]*\): it has 1\n$/,
    });
    await isClear(t, bench);
  },

  'is told what to do with content that is not a file system': async (t, bench) => {
    const [at = ''] = await directories(bench, 'mnt');
    await bench.image('luks.img', MIB);
    await bench.sh('printf "LUKS\\272\\276\\000\\001" | dd of=luks.img conv=notrunc status=none');
    await bench.image('swap.img', MIB);
    await bench.sh('mkswap swap.img > out 2>&1');
    t.match(await bench.fusetap(['mount', 'luks.img', at]), {
      status: 1,
      stderr: /encrypted \(LUKS\)[^\n]*cryptsetup open/,
    });
    t.match(await bench.fusetap(['mount', 'swap.img', at]), { status: 1, stderr: /it is swap space/ });
    await isClear(t, bench);
  },

  'uses an attached vbd, and is told where it is in use': async (t, bench) => {
    const [one = '', two = ''] = await directories(bench, 'one', 'two');
    const image = await twoPartitions(bench, 'pi.img');
    const vbd = await bench.attach('--partitions', image);
    await bench.succeed(['mount', `${vbd}2`, two]);
    await bench.succeed(['mount', image, one, '--partition', '1']);
    t.match(await bench.list(), [{ vdev: 'xvda', bus: '0', detachesWhenUnused: false }], 'no bus on a bus');
    const busy = await bench.fusetap(['mount', '--partition', '2', image, one]);
    t.match(busy, { status: 4, stderr: /partition 2 of \S+pi\.img is mounted on \S+two already: fusetap umount/ });
    await bench.sh('umount "$1" "$2"', one, two);
    t.match(await bench.list(), [{ vdev: 'xvda' }], 'what attach attached stays after umount(8)');
    await bench.succeed(['mount', `${vbd}1`, one]);
    await bench.succeed(['umount', one]);
    await isClear(t, bench);

    await bench.attach(await ext4(bench, 'part.img'), 'xvdb');
    const write = bench.startProgram('sh', [
      '-c',
      'exec 7<> "$1"; echo open; exec sleep 60',
      'sh',
      `${bench.runtimeDir}/bus/0/xvdb`,
    ]);
    await eventually('the program', 20_000, async () => (await bench.list())[0]?.opens === 1);
    const used = await bench.fusetap(['mount', 'part.img', one]);
    t.match(used, { status: 4, stderr: /is in use by pid \d+ \(sleep\)/ }, 'for example a virtual machine');
    write.kill('SIGKILL');
    await bench.detach('--wait', '20', 'xvdb');
    await isClear(t, bench);
  },

  'mounts read-only what cannot be written, with a remark': async (t, bench) => {
    const [one = '', two = ''] = await directories(bench, 'one', 'two');
    const image = await ext4(bench, 'fixed.img');
    await bench.sh('chattr +i "$1"', image);
    const remark = /one is mounted read-only: \S+fixed\.img cannot be written\n$/;
    t.match(await bench.fusetap(['mount', image, one]), { status: 0, stderr: remark });
    t.match(
      await bench.fusetap(['mount', image, two]),
      { status: 0, stderr: /two is mounted read-only/ },
      'twice is fine',
    );
    t.equal((await bench.list()).length, 1);
    await bench.succeed(['umount', image]);
    await bench.sh('chattr -i "$1"', image);
    await bench.succeed(['mount', '-r', image, one]);
    const writer = await bench.fusetap(['mount', image, two]);
    t.match(writer, {
      status: 4,
      stderr: /fixed\.img is attached read-only as xvda of bus mounts: mount it with --read-only/,
    });
    await bench.succeed(['umount', one]);
    await isClear(t, bench);
  },
};

onDefaultTransport(t, MAKERS, async (t, transport) => {
  const bench = await openBench(t, transport);
  // one bus for all, so that none has to be started for each
  await bench.begin('--bus', 'mounts');
  for (const [name, wish] of Object.entries(WISHES)) await t.test(name, async (t) => wish(t, bench));
  await bench.succeed(['stop', '--bus', 'mounts']);
});
