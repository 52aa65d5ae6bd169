/** attach --partitions: what the table says comes to be files beside the disk, and all of them are one disk. */
import t, { type Test } from 'tap';
import { resolveBus } from '../../mount/client/index.js';
import { swap } from '../../mount/client/swap.js';
import type { PartitionInfo, VbdInfo } from '../../mount/control/interface.js';
import { SFDISK, SFDISK_PROGRAMS, type SfdiskPartition } from '../drivers/partitions/sfdisk.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import {
  type Bench,
  forEachTransport,
  JUST_USER,
  OTHERS_ON_BOTH,
  onDefaultTransport,
  openBench,
  storiesFor,
} from './fixtures.js';
import { busInfo, replaceServer } from './kill-server.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const DISK_BYTES = 48 * MIB;
const MBR = 'label: dos\\n,8M,83\\n,4M,c\\n,16M,5\\n,4M,82\\n,3M,83\\n,4M,7\\n';
const GPT = 'label: gpt\\nname="boot", size=8M, type=U\\n5: size=4M, type=L\\n';

/** Has sfdisk write a table, by its own words. */
function partition(bench: Bench, image: string, script: string, ...words: string[]): Promise<string> {
  return bench.sh('script=$1; shift; printf "$script" | "$@"', script, ...SFDISK, '-q', ...words, image);
}

async function partitionedImage(bench: Bench, name: string, script: string): Promise<string> {
  const image = await bench.image(name, DISK_BYTES);
  await partition(bench, image, script);
  return image;
}

/** What sfdisk says that the partitions are, but for the box of logical ones. */
async function bySfdisk(bench: Bench, image: string): Promise<Partial<PartitionInfo>[]> {
  const { partitiontable } = JSON.parse(await bench.sh('sfdisk --json "$1"', image));
  return (partitiontable.partitions as SfdiskPartition[])
    .map(({ node, start, size, type, name }) => ({
      vdev: `xvda${node.slice(image.length)}`,
      offset: start * 512,
      size: size * 512,
      type,
      name: name ?? null,
    }))
    .filter(({ type }) => type !== '5')
    .sort((a, b) => a.vdev.localeCompare(b.vdev));
}

/** Asks the bus over its control socket, for a start of Node less each time. */
async function show(bench: Bench, vdev = 'xvda'): Promise<VbdInfo> {
  const { vbds } = await busInfo(bench);
  const vbd = vbds.find((each) => each.vdev === vdev);
  if (vbd === undefined) throw new Error(`there is no ${vdev}`);
  return vbd;
}

type Story = (t: Test, bench: Bench) => Promise<void>;

const STORIES: Record<string, Story> = {
  MBR: mbr,
  'a bus without its keeper': orphan,
};
/** what does not depend on who runs the bus */
const AS_ROOT: Record<string, Story> = {
  'GPT in memory': gptInMemory,
  'another image': anotherImage,
  'filters, modes and tables that are none': others,
};

onDefaultTransport(
  t,
  [...SFDISK_PROGRAMS, 'mkfs.ext4', 'dumpe2fs', 'cmp'],
  async (t, transport) => {
    const stories = storiesFor(transport, STORIES, AS_ROOT);
    for (const [name, story] of Object.entries(stories)) {
      await t.test(name, async (t) => story(t, await openBench(t, transport)));
    }
  },
  JUST_USER,
);

forEachTransport(
  t,
  SFDISK_PROGRAMS,
  async (t, transport) => {
    const bench = await openBench(t, transport);
    const disk = await bench.attach('--partitions', await partitionedImage(bench, 'disk.img', GPT));
    await bench.sh('printf hello | dd of="$1"5 bs=1 seek=10 conv=notrunc status=none', disk);
    const { partitions } = await show(bench);
    const at = (partitions?.[1]?.offset ?? 0) + 10;
    t.equal(await bench.sh('dd if="$1" bs=1 skip="$2" count=5 status=none', disk, String(at)), 'hello');
    await bench.detach('xvda');
    t.same(await bench.traces(), []);
  },
  // the user has more than this above
  OTHERS_ON_BOTH.filter((way) => !JUST_USER.includes(way)),
);

interface PartitionedDisk {
  readonly image: string;
  /** its path on the bus */
  readonly disk: string;
  /** its partitions, as sfdisk tells them */
  readonly wanted: readonly Partial<PartitionInfo>[];
}

async function mbr(t: Test, bench: Bench): Promise<void> {
  const image = await partitionedImage(bench, 'disk.img', MBR);
  const wanted = await bySfdisk(bench, image);
  const disk = await bench.attach('--partitions', image);
  const { partitions } = await show(bench);
  t.equal(wanted.length, 5);
  t.match(partitions, wanted);
  t.match(partitions, [{ slot: 51713, path: `${disk}1`, typeName: 'Linux filesystem', opens: 0 }]);
  t.match(await bench.succeed(['show', 'xvda']), /^partition +xvda2 at 9437184, 4194304 \(4M\), FAT32 \(LBA\)$/m);
  t.match(await bench.succeed(['ls']), /^0 +xvda5 +51717 +aio +w +3M +0 +running /m);
  t.equal(
    await bench.sh('cd "$1"; for x in xvda*; do stat -c "%n %s" $x; done | paste -sd " "', disk.slice(0, -5)),
    `xvda ${DISK_BYTES} xvda1 ${8 * MIB} xvda2 ${4 * MIB} xvda4 ${4 * MIB} xvda5 ${3 * MIB} xvda6 ${4 * MIB}`,
  );

  const partitioned: PartitionedDisk = { image, disk, wanted };
  await t.test('are one with the disk', (t) => writeToBoth(t, bench, partitioned));
  await t.test('outlive servers', (t) => outliveServers(t, bench, partitioned));
  await t.test('are held with it', (t) => pauseDisk(t, bench, partitioned));
  await bench.attach(await bench.image('other.img', MIB), 'xvdb3');
  // refused alike whoever asks
  if (bench.transport.runner === undefined) {
    await t.test('are no vbds of their own', (t) => refuseAsVbds(t, bench, disk));
  }
  await t.test('go with it', (t) => detachDisk(t, bench, partitioned));
}

async function writeToBoth(t: Test, bench: Bench, { image, disk, wanted }: PartitionedDisk): Promise<void> {
  await bench.sh('mkfs.ext4 -q -F "$1"1', disk);
  const uuid = 'dumpe2fs -h "$1" 2>&- | grep UUID';
  const own = await bench.sh(uuid, `${disk}1`);
  t.equal(await bench.sh(uuid, `${disk}?offset=${MIB}`), own);
  t.equal(await bench.sh(uuid, `${image}?offset=${MIB}`), own);
  await bench.sh(
    'head -c 3145728 /dev/urandom >new; dd if=new of="$1" bs=1M seek="$2" oflag=seek_bytes conv=notrunc status=none; cmp new "$1"5',
    disk,
    String(wanted[3]?.offset),
  );
  t.match(
    await bench.try('head -c 4194305 /dev/zero | dd of="$1"6 bs=1M iflag=fullblock conv=notrunc status=none', disk),
    { status: 1, stderr: /No space left/ },
    'and end where they end',
  );
}

async function outliveServers(t: Test, bench: Bench, { disk }: PartitionedDisk): Promise<void> {
  const stats = 'stat -c "%n %i %s %a" "$1"*; cat "$1"1 "$1"5 | md5sum';
  await bench.sh('chmod 640 "$1"2', disk);
  const before = await bench.sh(stats, disk);
  const client = await Client.open(t, bench, 'write', `${disk}1`);
  await replaceServer(bench, { limitMs: 10_000 });
  t.equal(await bench.sh(stats, disk), before);
  t.equal(await client.call('write', 0, 512, 'z'), '512');
  await bench.succeed(['upgrade']);
  t.equal(await client.call('read', 0, 512), '512', 'and what is open stays open');
  t.equal(await bench.sh('dd if="$1" bs=1 skip=$((1 << 20)) count=3 status=none', disk), 'zzz');
  t.equal((await show(bench)).partitions?.[0]?.opens, 1);
  t.match(await bench.fusetap(['detach', 'xvda']), {
    status: 4,
    stderr: new RegExp(`xvda1 on bus 0 is in use by .*${client.pid}`),
  });
  t.equal(await bench.sh('cat "$1" "$1"5 | wc -c', disk), String(DISK_BYTES + 3 * MIB), 'all can be opened again');
  await client.release();
}

async function pauseDisk(t: Test, bench: Bench, { image, disk }: PartitionedDisk): Promise<void> {
  const client = await Client.open(t, bench, 'write', `${disk}1`);
  await bench.succeed(['pause', 'xvda']);
  let answered = false;
  const write = client.call('write', 0, 512, 'p').finally(() => {
    answered = true;
  });
  // the image under it shows that nothing is written, whatever time it takes to look
  t.equal(await bench.sh('dd if="$1" bs=1 skip=$((1 << 20)) count=1 status=none', image), 'z');
  t.equal(answered, false);
  await bench.succeed(['resume', 'xvda']);
  t.equal(await write, '512');
  await client.release();
  await bench.succeed(['save', 'xvda', bench.path('copy.img')]);
  await bench.sh('cmp copy.img "$1"', disk);
}

async function detachDisk(t: Test, bench: Bench, { image, disk }: PartitionedDisk): Promise<void> {
  const client = await Client.open(t, bench, 'read', `${disk}5`);
  await bench.detach('xvda', '--force');
  t.match(await client.call('read', 0, 512), /Input\/output error/);
  await client.release();
  t.equal(await bench.sh('ls "$1" | grep xvd', disk.slice(0, -5)), 'xvdb3');
  await partition(bench, image, 'label: dos\\n,1M,83\\n');
  await bench.attach('--partitions', image, 'xvda');
  t.match((await show(bench)).partitions, [{ vdev: 'xvda1', size: MIB }], 'and a new table shows at the next attach');
  await bench.detach('--all');
  t.same(await bench.traces(), []);
}

/** @param disk partitioned; beside it is xvdb3 */
async function refuseAsVbds(t: Test, bench: Bench, disk: string): Promise<void> {
  const refused = { status: 2, stderr: /xvda1 on bus 0 is a partition of xvda: name the disk/ };
  for (const words of [
    ['detach', 'xvda1'],
    ['detach', `${disk}1`],
    ['pause', '51713'],
    ['save', 'xvda1', 'copy.img'],
  ]) {
    t.match(await bench.fusetap(words), refused, words.join(' '));
  }
  t.match(await bench.succeed(['show', 'xvda1']), /^vdev +xvda$/m, 'where it does no harm, it stands for its disk');
  const third = await bench.image('third.img', MIB);
  t.match(await bench.fusetap(['attach', third, 'xvda9']), {
    status: 4,
    stderr: /slot 51721 \(xvda9\).*is taken.*detach.*xvda/,
  });
  t.match(await bench.fusetap(['attach', '--partitions', third, 'xvdb']), {
    status: 4,
    stderr: /xvdb3/,
  });
  t.match(await bench.fusetap(['attach', '--partitions', third, 'xvdc2']), {
    status: 2,
    stderr: /not the slot of a whole disk/,
  });
  t.match(await bench.fusetap(['stats', '--json']), { stdout: /"xvda5"/ });
}

async function gptInMemory(t: Test, bench: Bench): Promise<void> {
  const image = await partitionedImage(bench, 'disk.img', GPT);
  const disk = await bench.attach('--partitions', `ram:${image}`);
  t.match((await show(bench)).partitions, await bySfdisk(bench, image));
  await bench.sh('printf first | dd of="$1"1 conv=notrunc status=none', disk);
  const first = 'dd if="$1" bs=1 skip=$((1 << 20)) count=5 status=none';
  t.equal(await bench.sh(first, disk), 'first', 'also where the disk is passed through');

  await partition(bench, image, 'label: dos\\n2: start=4096, size=100, type=83\\n');
  const client = await Client.open(t, bench, 'read', `${disk}5`);
  t.match(await bench.fusetap(['reset', 'xvda']), { status: 4, stderr: /xvda5 on bus 0 is in use/ });
  await client.release();
  await bench.succeed(['reset', 'xvda']);
  t.match(
    (await show(bench)).partitions,
    [{ vdev: 'xvda2', offset: MIB * 2, size: 51200 }],
    'reset reads the new table',
  );
  await bench.detach('xvda');

  await partition(bench, image, 'label: dos\\n,40M\\n');
  const env = { FUSETAP_RAM_LIMIT: '12M' };
  await bench.succeed(['attach', '--partitions', '--passthrough', 'off', `ram:${image}`], { env });
  const fill = 'dd if=/dev/zero of="$1"1 bs=1M count="$2" seek="$3" conv=notrunc status=none';
  t.equal((await bench.try(fill, disk, '4', '0')).status, 0);
  t.match(
    await bench.try(fill, disk, '30', '8'),
    { status: 1, stderr: /No space left/ },
    'holes count as those of the disk',
  );
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function others(t: Test, bench: Bench): Promise<void> {
  await bench.begin();
  const image = await partitionedImage(bench, 'disk.img', GPT);
  const disk = await bench.attach('--partitions', '-r', image);
  t.match(await Client.tryOpen(t, bench, 'write', `${disk}1`), /Read-only/);
  t.equal(await Client.tryOpen(t, bench, 'read', `${disk}1`), 'ready');
  await bench.detach('xvda');

  const broken = bench.path('broken');
  const rule = `error=write:1M-2M@${broken}`;
  await bench.attach('--partitions', '--filter', 'delay=1', '--filter', rule, image);
  const client = await Client.open(t, bench, 'write', `${disk}1`);
  t.equal(await client.call('write', 0, 512, 'f'), '512');
  t.equal(
    await bench.sh('dd if="$1" bs=1 skip=$((1 << 20)) count=1 status=none', disk),
    'f',
    'a disk that is no window',
  );
  await bench.sh('touch "$1"', broken);
  t.match(await client.call('write', 0, 512, 'g'), /Input\/output error/, 'filters see where in the disk it is');
  t.equal(await client.call('write', MIB, 512, 'g'), '512');
  await client.release();
  await bench.detach('xvda');

  await bench.sh('dd if=/dev/zero of="$1" bs=512 seek=1 count=1 conv=notrunc status=none', image);
  const backup = await bench.fusetap(['attach', '--partitions', image]);
  t.match(backup, {
    status: 0,
    stderr: /^fusetap: xvda: the GPT is read from its backup: there is no header at byte 512\n$/,
  });
  t.equal((await show(bench)).partitions?.length, 2);
  await bench.detach('xvda');

  const garbage = await bench.image('garbage.img', MIB, MIB);
  t.match(await bench.fusetap(['attach', '--partitions', garbage]), {
    status: 0,
    stderr: /^fusetap: xvda: there is no partition table\n$/,
  });
  t.same((await show(bench)).partitions, []);
  await bench.detach('xvda');
  t.same(await bench.attach(garbage), disk);
  t.equal((await show(bench)).partitions, null, 'nobody asked');

  const many = await bench.image('many.img', 4 * MIB);
  const script = Array.from({ length: 17 }, (_, i) => `start=${2048 + i}, size=1\\n`).join('');
  await partition(bench, many, `label: gpt\\n${script}`);
  await bench.attach('--partitions', many, 'xvdq');
  t.match((await show(bench, 'xvdq')).partitions, { length: 17, 16: { vdev: 'xvdq17' } });
  const few = await bench.fusetap([
    'attach',
    '--partitions',
    await bench.sh('cp "$1" few.img; realpath few.img', many),
    'sda',
  ]);
  t.match(few.stderr, /^fusetap: sda: partition 16 is left out: sda has no slot for that number$/m);
  t.equal((await show(bench, 'sda')).partitions?.length, 15);
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

async function orphan(t: Test, bench: Bench): Promise<void> {
  const disk = await bench.attach('--partitions', await partitionedImage(bench, 'disk.img', MBR));
  process.kill((await show(bench)).keeperPid as number, 'SIGKILL');
  await eventually('an orphan', 10_000, async () => (await bench.list())[0]?.state === 'orphaned');
  const client = await Client.open(t, bench, 'read', `${disk}5`);
  t.match((await bench.list())[0]?.partitions, [{ opens: 0 }, { opens: 0 }, { opens: 0 }, { vdev: 'xvda5', opens: 1 }]);
  t.match(await bench.fusetap(['detach', 'xvda5']), { status: 2, stderr: /partition of xvda/ });
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 4, stderr: /xvda5 on bus 0 is in use/ });
  t.equal(await client.call('read', 0, 512), '512');
  await client.release();
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

/** The windows stay where they were; what is in them is the other image's. */
async function anotherImage(t: Test, bench: Bench): Promise<void> {
  const image = await partitionedImage(bench, 'one.img', MBR);
  const other = bench.path('two.img');
  await bench.sh(
    'cp "$1" "$2"; printf other | dd of="$2" bs=1 seek="$3" conv=notrunc status=none',
    image,
    other,
    `${MIB}`,
  );
  await bench.attach('--partitions', image);
  const place = await resolveBus('0', bench.runtimeDir);
  const first = (await show(bench)).partitions?.[0];
  t.equal(first?.offset, MIB);
  await bench.succeed(['pause', 'xvda']);
  await swap(place, 'xvda', { driver: 'aio', image: other, options: {} });
  await bench.succeed(['resume', 'xvda']);
  t.equal(await bench.sh('head -c 5 "$1"', first?.path ?? ''), 'other');
  await bench.sh('printf again | dd of="$1" conv=notrunc status=none', first?.path ?? '');
  await replaceServer(bench, { limitMs: 10_000 });
  t.equal(await bench.sh('tail -c +$(($2 + 1)) "$1" | head -c 5', other, `${MIB}`), 'again');
  t.equal(await bench.sh('head -c 5 "$1"', first?.path ?? ''), 'again', 'the next server has it too');
  await bench.detach('xvda');
}
