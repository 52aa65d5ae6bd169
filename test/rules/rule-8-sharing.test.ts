/**
 * Rule 8, on real buses: who may share an image with whom, whatever the path that it is reached by, and in the face of
 * all others who use it. test/mount/images/claim-image.test.ts tries the check by itself, byte by byte.
 */
import { link, mkdir, symlink, writeFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Mode } from '../../mount/images/mode.js';
import { AS_USER } from '../e2e/runners.js';
import type { Bus } from '../survival/bus.js';
import { attachFor, type Ground, O_RDONLY, prepareGround, refusalOf, whyNotRules } from './fixture.js';

t.setTimeout(120_000);

const SIZE = 1 << 20;
const MODES: readonly Mode[] = ['r', 'w', 'w!'];

/** What the table of the rule refuses: `new held`. */
const BUSY = new Set(['r w', 'w r', 'w w', 'w w!']);

void t.test('rule 8: sharing', { skip: whyNotRules('losetup', 'qemu-io', 'qemu-img', 'mkfs.ext4') }, async (t) => {
  const ground = await prepareGround(t);
  await t.test('the table, on one bus and across buses, by any path', (t) => keepTable(t, ground));
  await t.test('vbds of mode r share with each other, and the last that goes lets w in', (t) =>
    countReaders(t, ground),
  );
  await t.test('a relative path, or an open descriptor, is the same image', (t) => refuseRelative(t, ground));
  await t.test('ram vbds share by design, but copy only what nobody writes', (t) => shareMemory(t, ground));
  await t.test('of 100 simultaneous attaches for writing one succeeds', (t) => raceForWriting(t, ground));
  await t.test('after a server was replaced, its claims still hold', (t) => keepAfterRestart(t, ground));
  await t.test('a refused attach leaves nothing behind', (t) => leaveNothing(t, ground));
  await t.test('QEMU keeps away from what is attached', (t) => keepQemuAway(t, ground));
  await t.test('an image that QEMU has open', (t) => refuseQemus(t, ground));
  await t.test('programs of another user', { skip: whyNotRules('setpriv') }, (t) => refuseOthers(t, ground));
  await t.test('an image below a loop device', (t) => refuseLoops(t, ground));
  await t.test('a block device that is mounted', (t) => refuseMounted(t, ground));
  await t.test('a block device is its number and its range', { skip: whyNotRules('addpart', 'mknod') }, (t) =>
    refuseOverlapping(t, ground),
  );
});

async function keepTable(t: Test, ground: Ground): Promise<void> {
  const { bench, a, b } = ground;
  const image = await bench.image('table.img', SIZE);
  const names = await otherNames(t, ground, image);
  for (const held of MODES) {
    const holder = await a.attach({ driver: 'aio', image, mode: held });
    for (const [how, name] of Object.entries(names)) {
      for (const mode of MODES) {
        // the bus that holds it already has no privilege; other buses are tried by every name
        for (const bus of how === 'its path' ? [a, b] : [b]) {
          const refused = await tryAttach(bus, name, mode);
          const want = BUSY.has(`${mode} ${held}`) ? 'BUSY' : null;
          t.equal(refused?.code ?? null, want, `${mode} by ${how} on bus ${bus.place.name}, held ${held}`);
          if (refused) {
            t.equal(refused.message, `${name} is attached with mode ${held} by bus a as ${holder.vdev}`);
            t.match(refused.hint, new RegExp(`^fusetap detach --bus a ${holder.vdev}, .*w!$`));
          }
        }
      }
    }
    await a.detach(holder.vdev);
  }
}

/** All the names that a file may be reached by. */
async function otherNames(t: Test, { bench, caller }: Ground, image: string): Promise<Record<string, string>> {
  await mkdir(bench.path('names'));
  const [soft, hard, bound] = ['soft', 'hard', 'bound'].map((name) => bench.path(`names/${name}`)) as [
    string,
    string,
    string,
  ];
  await symlink('../table.img', soft);
  await link(image, hard);
  await writeFile(bound, '');
  await bench.sh('mount --bind "$1" "$2"', image, bound);
  t.teardown(() => bench.sh('umount "$1"', bound));
  const fd = await caller.open(image, O_RDONLY);
  return {
    'its path': image,
    'a symbolic link': soft,
    'a hard link': hard,
    'a bind mount': bound,
    'a descriptor of another process': `/proc/${caller.pid}/fd/${fd}`,
    'a path with dots': `${bench.directory}/names/./../table.img`,
  };
}

/** Attaches, and detaches at once. @returns the error where it is refused */
function tryAttach(bus: Bus, image: string, mode: Mode, driver = 'aio') {
  return refusalOf(bus.attach({ driver, image, mode }).then(({ vdev }) => bus.detach(vdev)));
}

async function countReaders(t: Test, { bench, a, b }: Ground): Promise<void> {
  const image = await bench.image('readers.img', SIZE);
  const readers = [await a.attach({ driver: 'aio', image, mode: 'r' })];
  readers.push(await b.attach({ driver: 'sync', image, mode: 'r' }));
  await a.detach(readers[0]?.vdev as string);
  t.match(await tryAttach(a, image, 'w'), { code: 'BUSY', message: /mode r by bus b as/ });
  await b.detach(readers[1]?.vdev as string);
  t.equal(await tryAttach(a, image, 'w'), null);
}

/** As a user sees it: on the command line, with its exit code. */
async function refuseRelative(t: Test, { bench, a }: Ground): Promise<void> {
  const image = await bench.image('near.img', SIZE);
  await attachFor(t, a, { driver: 'aio', image });
  for (const name of ['near.img', '/dev/fd/3', '/proc/self/fd/3', '/dev/stdin']) {
    const script = '"$1" "$2" attach --bus b "$3" 3<>near.img <near.img';
    const refused = await bench.try(script, process.execPath, bench.program, name);
    t.match(refused, { status: 4, stdout: '' }, name);
    const [, message, hint] = /^fusetap: (.*): (fusetap detach [^\n]*w!)\n$/.exec(refused.stderr) ?? [];
    t.equal(message, `${image} is attached with mode w by bus a as xvda`);
    t.match(hint, 'fusetap detach --bus a xvda');
  }
}

async function shareMemory(t: Test, { bench, a, b }: Ground): Promise<void> {
  const image = await bench.image('shared.img', SIZE);
  await t.test('any modes', async (t) => {
    for (const mode of MODES) await attachFor(t, mode === 'r' ? a : b, { driver: 'ram', image, mode });
    t.equal(await tryAttach(a, image, 'w'), null, 'and the image is not held while they live');
  });
  await attachFor(t, a, { driver: 'aio', image, mode: 'w' });
  t.match(
    await tryAttach(b, image, 'w', 'ram'),
    { code: 'BUSY', message: /mode w by bus a/ },
    'no copy of what changes',
  );
}

/** asks two buses in turn, so many times; prints one line for each attach that was not refused as BUSY */
const ATTACHER = `
const { askBus } = await import(process.argv[1]);
const [places, image, times] = [JSON.parse(process.argv[2]), process.argv[3], Number(process.argv[4])];
for (let i = 0; i < times; i++) {
  const body = { driver: 'aio', image, vdev: null, mode: 'w', options: {} };
  const request = { method: 'POST', path: '/vbds', body };
  await askBus(places[i % places.length], request).then(
    (vbd) => console.log('attached ' + vbd.bus + ' ' + vbd.vdev),
    (error) => console.log(error.code + ' ' + error.message),
  );
}
`;

async function raceForWriting(t: Test, { bench, a, b }: Ground): Promise<void> {
  const image = await bench.image('race.img', SIZE);
  const client = fileURLToPath(new URL('../../mount/control/http-client.js', import.meta.url));
  const places = JSON.stringify([a.place, b.place]);
  const runs = Array.from({ length: 8 }, (_, i) =>
    bench.execute(process.execPath, [
      ...['--input-type=module', '-e', ATTACHER, client, places, image, i < 4 ? '13' : '12'],
    ]),
  );
  const lines = (await Promise.all(runs)).flatMap(({ stdout, stderr }) => `${stdout}${stderr}`.trim().split('\n'));
  t.equal(lines.length, 100);
  const winners = lines.filter((line) => line.startsWith('attached '));
  t.equal(winners.length, 1, winners.join(', '));
  const [, bus, vdev] = (winners[0] ?? '').split(' ');
  const others = lines.filter((line) => !line.startsWith('attached '));
  const told = others.filter((line) => line === `BUSY ${image} is attached with mode w by bus ${bus} as ${vdev}`);
  t.ok(others.every((line) => line.startsWith('BUSY ')));
  t.ok(told.length > 50, `${told.length} of 99 are told by whom, the others by which bus that is about to`);
  await (bus === 'a' ? a : b).detach(vdev as string);
}

async function keepAfterRestart(t: Test, { bench, a, b }: Ground): Promise<void> {
  const image = await bench.image('restart.img', SIZE);
  await attachFor(t, a, { driver: 'aio', image, mode: 'w' });
  await a.killServer();
  for (const mode of ['r', 'w'] as const) t.match(await tryAttach(b, image, mode), { code: 'BUSY' }, mode);
}

async function leaveNothing(t: Test, { bench, a, b }: Ground): Promise<void> {
  const image = await bench.image('undone.img', SIZE);
  const vbd = await a.attach({ driver: 'aio', image, mode: 'r' });
  for (let i = 0; i < 5; i++) t.match(await tryAttach(b, image, 'w'), { code: 'BUSY' });
  t.equal(await tryAttach(b, image, 'r'), null, 'the refused left no mark');
  await a.detach(vbd.vdev);
  t.match(await Promise.all([a.info(), b.info()]), [{ vbds: [] }, { vbds: [] }]);
  t.equal(await tryAttach(b, image, 'w'), null);
}

async function keepQemuAway(t: Test, { bench, a }: Ground): Promise<void> {
  const image = await bench.image('qemu.img', SIZE, 4096);
  const programs: Record<string, string> = {
    'qemu-io that reads': 'qemu-io -f raw -r -c "read 0 512" "$1"',
    'qemu-io that reads with -U': 'qemu-io -f raw -r -U -c "read 0 512" "$1"',
    'qemu-img convert from it': 'qemu-img convert -f raw -O raw "$1" converted.img',
    'qemu-io that writes': 'qemu-io -f raw -c "write 0 512" "$1"',
    'qemu-img convert to it': 'qemu-img convert -n -f raw -O raw other.img "$1"',
  };
  await bench.image('other.img', SIZE, 512);
  for (const mode of MODES) {
    const { vdev } = await a.attach({ driver: 'aio', image, mode });
    for (const [what, script] of Object.entries(programs)) {
      const { status, stderr } = await bench.try(script, image);
      const refused = mode === 'w' || (mode === 'r' && /writes|to it/.test(what));
      t.equal(status === 0, !refused, `${what}, held ${mode}`);
      if (refused) t.match(stderr, /Failed to get .*lock/, 'by its lock');
    }
    await a.detach(vdev);
  }
}

async function refuseQemus(t: Test, ground: Ground): Promise<void> {
  const image = await ground.bench.image('guest.img', SIZE);
  for (const [option, refused] of [
    ['-r', ['w']],
    ['-n', ['r', 'w']],
  ] as const) {
    const qemu = await holdByQemu(ground, image, [option]);
    for (const mode of MODES) {
      const error = await tryAttach(ground.a, image, mode);
      t.equal(error?.code ?? null, (refused as readonly string[]).includes(mode) ? 'BUSY' : null, `${mode}, ${option}`);
      if (error === null) continue;
      const what = option === '-r' ? 'is read by' : 'is open for writing in';
      t.equal(error.message, `${image} ${what} pid ${qemu.pid} (qemu-io)`);
      t.match(error.hint, /end that program.*w!/);
    }
    await qemu.end();
  }
  t.equal(await tryAttach(ground.a, image, 'w'), null, 'it ended');
}

/** A qemu-io that has read from the image, and has it open. @param command what it is run by */
async function holdByQemu({ bench }: Ground, image: string, options: string[], command: readonly string[] = []) {
  const [program = '', ...args] = [...command, 'qemu-io', '-f', 'raw', ...options, image];
  const qemu = bench.startProgram(program, args);
  const ended = new Promise((resolve) => qemu.once('close', resolve));
  await new Promise((resolve) => {
    qemu.stdout?.once('data', resolve);
    qemu.stdin?.write('read 0 512\n');
  });
  const end = async (): Promise<void> => {
    qemu.stdin?.end('quit\n');
    await ended;
  };
  return { pid: qemu.pid, end };
}

async function refuseOthers(t: Test, ground: Ground): Promise<void> {
  const { bench, a } = ground;
  const image = await bench.image('common.img', SIZE);
  await bench.sh('chmod 755 .; chmod 666 "$1"', image);
  const qemu = await holdByQemu(ground, image, [], AS_USER);
  t.equal((await tryAttach(a, image, 'w'))?.message, `${image} is open for writing in pid ${qemu.pid} (qemu-io)`);
  await qemu.end();
  await attachFor(t, a, { driver: 'aio', image });
  const [program = '', ...args] = [...AS_USER, 'qemu-io', '-f', 'raw', '-r', '-c', 'read 0 512', image];
  t.match(await bench.execute(program, args), { status: 1, stderr: /Failed to get .*lock/ });
}

async function refuseLoops(t: Test, { bench, a }: Ground): Promise<void> {
  const image = await bench.image('loop.img', 8 << 20);
  await link(image, bench.path('loop-too.img'));
  await bench.sh('mkfs.ext4 -q "$1"', image);
  const directory = await bench.makeDirectory('mnt');
  for (const options of [['--read-only'], []]) {
    const loop = await bench.loop(bench.path('loop-too.img'), ...options);
    await bench.sh('mount "$@"', ...(options.length > 0 ? ['-r', '-o', 'noload'] : []), loop, directory);
    for (const mode of MODES) {
      const error = await tryAttach(a, image, mode);
      const want = mode === 'w' || (mode === 'r' && options.length === 0) ? 'BUSY' : null;
      t.equal(error?.code ?? null, want, `${mode}, ${options.join('') || 'writable'}`);
      if (error === null) continue;
      const kind = options.length > 0 ? 'read-only loop device' : 'loop device';
      t.equal(error.message, `${image} is used by the ${kind} ${loop}, mounted on ${directory}`);
      t.equal(error.hint, `umount ${directory}; losetup -d ${loop}; or waive the check with mode w!`);
    }
    await bench.sh('umount "$1"; losetup -d "$2"', directory, loop);
  }
  t.equal(await tryAttach(a, image, 'w'), null, 'the loop device is gone');
}

async function refuseMounted(t: Test, { bench, a }: Ground): Promise<void> {
  const file = await bench.image('device.img', 8 << 20);
  await bench.sh('mkfs.ext4 -q "$1"', file);
  const device = await bench.loop(file);
  const directory = await bench.makeDirectory('mounted');
  t.equal(await tryAttach(a, device, 'w'), null);
  await bench.sh('mount "$1" "$2"', device, directory);
  for (const mode of ['r', 'w'] as const) {
    const error = await tryAttach(a, device, mode);
    t.match(error, { code: 'BUSY', message: `${device} is mounted on ${directory}`, holders: [{ mount: directory }] });
    t.match(error?.hint, `umount ${directory}; or`);
  }
  t.equal(await tryAttach(a, device, 'w!'), null, 'w! asks nobody');
  await bench.sh('umount "$1"; losetup -d "$2"', directory, device);
}

/** A loop device with two partitions, another loop device over the same file, and all the nodes of the first. */
async function makeDevices(
  t: Test,
  { bench }: Ground,
): Promise<Record<'disk' | 'one' | 'two' | 'twin' | 'node', string>> {
  const file = await bench.image('ranges.img', 4 * SIZE);
  const [disk, twin] = [await bench.loop(file), await bench.loop(file)];
  const sectors = String(SIZE / 512);
  await bench.sh('addpart "$1" 1 "$2" "$2"; addpart "$1" 2 $(($2 * 2)) "$2"', disk, sectors);
  t.teardown(() => bench.sh('delpart "$1" 1; delpart "$1" 2; losetup -d "$1" "$2"', disk, twin));
  const node = bench.path('node');
  await bench.sh('mknod "$2" b $(tr : " " < /sys/class/block/"$1"/dev)', basename(disk), node);
  return { disk, twin, node, one: `${disk}p1`, two: `${disk}p2` };
}

async function refuseOverlapping(t: Test, ground: Ground): Promise<void> {
  const { a, b, bench } = ground;
  const { disk, one, two, twin, node } = await makeDevices(t, ground);
  const overlaps: [string, Mode, string[]][] = [
    [disk, 'r', [one]],
    [disk, 'w', [node, one, two, twin]],
    [one, 'r', [twin]],
    [one, 'w', [disk, node]],
    [one, 'w!', [disk]],
    [node, 'w', [disk, one, twin]],
  ];
  for (const [held, mode, others] of overlaps) {
    const { vdev } = await a.attach({ driver: 'aio', image: held, mode });
    for (const other of others) {
      for (const wanted of MODES) {
        const refused = await tryAttach(b, other, wanted);
        const want = BUSY.has(`${wanted} ${mode}`) ? 'BUSY' : null;
        t.equal(refused?.code ?? null, want, `${wanted} of ${other}, ${held} held ${mode}`);
        if (refused) t.equal(refused.message, `${other} is attached with mode ${mode} by bus a as ${vdev}`);
      }
    }
    if (held === one) t.equal(await tryAttach(b, two, 'w'), null, 'a partition beside it is free');
    await a.detach(vdev);
  }
  await keepExclusively(t, ground, disk, one);
  await t.test('a file, and a loop device that came later', async (t) => {
    const file = await bench.image('later.img', SIZE);
    await attachFor(t, a, { driver: 'aio', image: file });
    const loop = await bench.loop(file);
    t.match(await tryAttach(b, loop, 'r'), {
      code: 'BUSY',
      message: `${loop} is attached with mode w by bus a as xvda`,
    });
    await bench.sh('losetup -d "$1"', loop);
  });
}

/** For writing the kernel knows it too, and keeps all others away; nothing of it stays. */
async function keepExclusively(t: Test, { a, b, bench }: Ground, disk: string, partition: string): Promise<void> {
  const { vdev } = await a.attach({ driver: 'aio', image: partition });
  await a.killServer();
  t.match(await tryAttach(b, disk, 'r'), { code: 'BUSY' }, 'a server that was replaced holds it');
  for (const device of [disk, partition]) {
    t.match(await bench.try('mkfs.ext4 -q -F "$1"', device), { status: 1, stderr: /in use/ }, 'mkfs');
  }
  await a.detach(vdev);
  t.match(await bench.try('mkfs.ext4 -q -F "$1"', partition), { status: 0 });
}
