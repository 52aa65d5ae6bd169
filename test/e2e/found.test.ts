/** A vbd is found by whatever its user knows of it; and what is told of vbds, buses and their users. */
import { cp, mkdir, readFile, rename, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import t, { type Test } from 'tap';
import type { BusInfo, VbdInfo } from '../../mount/control/interface.js';
import { attach as attachByLibrary, detach as detachByLibrary } from '../../mount/index.js';
import { readStartTime } from '../../system/proc.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { type Bench, forEachWay, JUST_USER, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill } from './kill-server.js';
import { standStill } from './stand-still.js';

t.setTimeout(400_000);

const MIB = 1 << 20;

type Story = (t: Test, bench: Bench) => Promise<void>;
type Shown = VbdInfo & { mounts: string[]; loops: string[]; holders: object[] | null };

const STORIES: Record<string, Story> = {
  'by all words': findByAllWords,
  'above a partition': findAbovePartition,
  'a dead bus': tellOfDeadBus,
  'a bus that is just beginning is not called dead': tellOfBeginningBus,
  'users, and the command is none of them': tellUsers,
  'an image that was moved, replaced, deleted': tellOfMovedImage,
  'a keeper that is stopped': tellOfStoppedKeeper,
  'an upgrade by another installation': upgradeByAnother,
};

onDefaultTransport(t, ['losetup', 'mkfs.ext4', 'sfdisk'], async (t, transport) => {
  for (const [name, story] of Object.entries(STORIES)) {
    await t.test(name, async (t) => story(t, await openBench(t, transport)));
  }
});

forEachWay(t, JUST_USER, async (t, transport) => {
  await t.test('users, as an ordinary user', async (t) => tellUsers(t, await openBench(t, transport)));
});

async function show(bench: Bench, ...words: string[]): Promise<Shown> {
  return JSON.parse(await bench.succeed(['show', '--json', ...words])) as Shown;
}

async function findByAllWords(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 16 * MIB);
  await bench.sh('mkfs.ext4 -q -F "$1"', image);
  const decoy = await bench.attach(await bench.image('decoy.img', MIB));
  const vbd = await bench.attach('--bus', 'two', image);
  const mnt = await bench.makeDirectory('mnt');
  await bench.sh('ln -s "$1" vbd-link; ln -s disk.img image-link; ln -s mnt mnt-link', vbd);
  await bench.sh('ln disk.img hard.img; mount "$1" "$2"', vbd, mnt);
  const [loop = ''] = await bench.loops();
  await symlink(loop, bench.path('loop-link'));
  const files = [vbd, 'vbd-link', join(dirname(vbd), 'by-slot/51712'), image, 'disk.img', 'image-link', 'hard.img'];
  const above = [mnt, 'mnt', 'mnt/', 'mnt-link', loop, 'loop-link'];
  for (const word of [...files, ...above]) {
    t.match(await show(bench, word), { bus: 'two', vdev: 'xvda', mounts: [mnt], loops: [loop] }, word);
  }
  t.match(await show(bench, 'xvda'), { bus: '0', path: decoy, mounts: [] }, 'a vdev is of the chosen bus');
  t.match(await bench.fusetap(['show', '--bus', '0', mnt]), { status: 3 }, 'a bus that is named is the only one');
  t.match(await bench.fusetap(['detach', mnt]), {
    status: 4,
    stderr: new RegExp(`in use by ${loop} mounted on ${mnt}`),
  });

  t.match(await bench.succeed(['stats', mnt]), /^two +xvda +read/m);
  t.match(JSON.parse(await bench.succeed(['ls', '--json', image])), [{ bus: 'two', mounts: [mnt] }]);
  t.same(JSON.parse(await bench.succeed(['ls', '--json', '.'])).length, 2, 'the images in a directory');
  t.match(await bench.succeed(['ls', dirname(decoy)]), /^BUS.*MOUNTED\n0 +xvda [^\n]*decoy\.img$/);
  t.match(await bench.succeed(['ls']), new RegExp(`^two +xvda [^\\n]*disk\\.img +${mnt}$`, 'm'));
  t.equal(await bench.succeed(['save', mnt, 'copy.img']), bench.path('copy.img'));
  const options = { runtimeDir: bench.runtimeDir };
  await t.rejects(detachByLibrary(mnt, options), { code: 'BUSY', holders: [{ loop, mount: mnt }] }, 'the library too');
  await bench.sh('umount "$1"', mnt);
  await bench.detach('vbd-link');
  const { path } = await attachByLibrary(image, options);
  await detachByLibrary(image, options);
  t.notOk((await bench.list()).some((each) => each.path === path));
}

async function findAbovePartition(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('two.img', 32 * MIB);
  await bench.sh('printf \'label: gpt\\nsize=20480\\nsize=20480\\n\' | sfdisk -q "$1"', image);
  const vbd = await bench.attach('--partitions', image);
  await bench.sh('mkfs.ext4 -q -F "$1"', `${vbd}2`);
  const mnt = await bench.makeDirectory('mnt');
  await bench.sh('mount "$1" "$2"', `${vbd}2`, mnt);
  const shown = await show(bench, mnt);
  t.match(shown, { vdev: 'xvda', mounts: [mnt], partitions: [{ mounts: [] }, { vdev: 'xvda2', mounts: [mnt] }] });
  t.match(await show(bench, `${vbd}1`), { vdev: 'xvda' }, 'a partition stands for its disk where that does no harm');
  t.match(await bench.fusetap(['detach', `${vbd}1`]), { status: 2, stderr: /xvda1 on bus 0 is a partition of xvda/ });
  t.match(await bench.succeed(['stats', `${vbd}2`]), /^0 +xvda2 +read/m);
  const [loop] = await bench.loops();
  const { keeperPid, serverPid, version } = await busInfo(bench);
  const tree = [
    `bus 0, running, ${bench.runtimeDir}/bus/0`,
    `|-keeper ${keeperPid}, version ${version?.keeper}`,
    `|-server ${serverPid}, version ${version?.server}`,
    `\`-xvda, 32M, mode w, aio:${image}`,
    '  |-xvda1, 10M, Linux filesystem',
    '  `-xvda2, 10M, Linux filesystem',
    `    \`-${loop}`,
    `      \`-mounted on ${mnt}`,
  ];
  t.equal(await bench.succeed(['show', '--tree']), tree.join('\n'));
  t.match(await bench.fusetap(['show', '--tree', '--json']), { status: 2 });
  const own = (await bench.succeed(['ls'])).split('\n').map((line) => line.endsWith(mnt));
  t.same(own, [false, false, false, true], 'the row of the partition has it');
  await bench.sh('umount "$1"', mnt);
}

async function tellOfBeginningBus(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  for (let round = 0; round < 4; round++) {
    let isBegun = false;
    const begun = bench.attach(image).finally(() => {
      isBegun = true;
    });
    while (!isBegun) {
      const { status, stdout, stderr } = await bench.fusetap(['ls']);
      t.match({ status, stderr }, { status: 0, stderr: '' }, stdout);
    }
    await begun;
    await bench.succeed(['stop']);
  }
}

async function tellOfDeadBus(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 16 * MIB);
  await bench.sh('mkfs.ext4 -q -F "$1"', image);
  await bench.begin('--bus', 'empty');
  const mnt = await bench.makeDirectory('mnt');
  await bench.sh('mount -r "$1" "$2"', await bench.attach(image), mnt);
  const { keeperPid, serverPid } = await busInfo(bench);
  for (const pid of [keeperPid, serverPid]) if (pid !== null) kill(pid);
  await eventually('both are gone', 10_000, () => readStartTime(serverPid ?? 0) === null);

  const dead =
    /fusetap: bus 0 is dead, its processes are gone but its mount is not: .*: fusetap stop --bus 0 removes it/;
  const { status, stdout, stderr } = await bench.fusetap(['ls']);
  t.match(stderr, dead);
  t.equal(status, 1, 'the list is incomplete');
  t.match(stdout, /\n0 [^\n]* dead +-\nempty [^\n]* no vbds +-\n$/);
  t.match(await bench.fusetap(['ls', '--json']), { status: 1, stdout: '[]\n' });
  t.match(JSON.parse(await bench.succeed(['ls', '--buses', '--json'])), [
    { bus: '0', state: 'dead', path: `${bench.runtimeDir}/bus/0`, vbds: [], error: { message: /is dead/ } },
    { bus: 'empty', state: 'running', vbds: [], error: null },
  ]);
  const commands = ['show', 'show xvda', `show ${image}`, `detach ${mnt}`, 'detach xvda', 'stats', 'upgrade', 'config'];
  for (const command of commands) {
    const words = command.split(' ');
    t.match(await bench.fusetap(words), { status: 3, stderr: new RegExp(`^${dead.source}`) }, command);
  }
  t.match(await bench.fusetap(['show', 'nowhere.img']), {
    status: 3,
    stderr: /'nowhere.img' on any bus; bus 0 is dead/,
  });
  await bench.sh('umount -l "$1"', mnt);
  await bench.succeed(['stop']);
  t.match(await bench.list(), []);
}

async function tellUsers(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  await bench.begin();
  const vbd = await bench.attach('--passthrough', 'off', image);
  t.same((await show(bench, 'xvda')).holders, []);
  const client = await Client.open(t, bench, 'read', vbd);
  t.same((await show(bench, image)).holders, [{ pid: client.pid, command: 'perl' }]);
  t.match(await bench.succeed(['show', 'xvda']), new RegExp(`^used by +pid ${client.pid} \\(perl\\)$`, 'm'));

  await bench.succeed(['pause', 'xvda']);
  t.match((await show(bench, 'xvda')).holders, [{ pid: client.pid }], 'a paused vbd tells its users');
  const paused = /in use by pid \d+ \(perl\); it is paused, so their I\/O waits: resume it/;
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 4, stderr: paused });
  await bench.succeed(['resume', 'xvda']);
  await client.release();

  // the shell is a user, and the command inherits its descriptors
  const held = (words: string): Promise<string> =>
    bench.sh(`exec 7<"$1" 8<"$1"; "$2" "$3" ${words} 2>&1 || true`, vbd, process.execPath, bench.program);
  t.match(await held('detach xvda'), /^fusetap: xvda on bus 0 is in use by pid \d+ \(sh\): /);
  t.match(await held('stop'), /^fusetap: xvda on bus 0 is in use by pid \d+ \(sh\): /);
  t.match(JSON.parse(await held('show xvda --json')).holders, [{ command: 'sh' }]);
  const alone = 'exec "$2" "$3" detach xvda <"$1" 7<"$1"';
  t.equal(await bench.sh(alone, vbd, process.execPath, bench.program), '', 'the command alone does not keep it');
  t.same(await bench.list(), []);
}

async function tellOfMovedImage(t: Test, bench: Bench): Promise<void> {
  const [image, moved] = [await bench.image('disk.img', MIB), bench.path('moved.img')];
  await bench.begin();
  await bench.attach(image);
  await rename(image, moved);
  t.match(await show(bench, 'moved.img'), { movedTo: moved, deleted: false, writtenOutside: false });
  t.match(await bench.succeed(['show', 'disk.img']), `${image} (moved to ${moved})`, 'the old path means it still');
  const detached = await bench.fusetap(['detach', 'xvda']);
  t.equal(detached.stderr, `fusetap: ${image} was moved while it was attached: its data is in ${moved}\n`);

  await bench.attach(moved);
  await rename(moved, image);
  await writeFile(moved, Buffer.alloc(MIB));
  t.match(await show(bench, 'xvda'), { movedTo: image, writtenOutside: false }, 'another file is there now');
  await bench.succeed(['detach', 'xvda', '-q']);

  await bench.attach(image);
  await bench.sh('rm "$1"', image);
  t.match(await show(bench, 'xvda'), { movedTo: null, deleted: true });
  t.match(await bench.succeed(['show', 'xvda']), `${image} (deleted: the detach loses its data`);
  t.match((await bench.fusetap(['detach', 'xvda'])).stderr, /was deleted while it was attached: its data is gone\n$/);
}

async function tellOfStoppedKeeper(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  await bench.attach(image);
  const { keeperPid } = await busInfo(bench);
  await standStill(keeperPid);
  try {
    const stderr = new RegExp(`^fusetap: bus 0 did not answer: its process ${keeperPid} is stopped: .*kill -CONT`);
    const commands = [['show'], ['show', 'xvda'], ['show', image], ['detach', 'xvda'], ['stats'], ['pause', 'xvda']];
    const outcomes = await Promise.all(commands.map((words) => bench.fusetap(words)));
    for (const [index, outcome] of outcomes.entries()) t.match(outcome, { status: 1, stderr }, `${commands[index]}`);
    t.match(await bench.fusetap(['ls']), { status: 1, stdout: /\n0 [^\n]* not answering /, stderr });
  } finally {
    process.kill(keeperPid ?? 0, 'SIGCONT');
  }
  await bench.detach('xvda');
}

/** A copy of the package, of another version. */
async function install(bench: Bench, name: string, version: string): Promise<string> {
  const root = new URL('../../../', import.meta.url).pathname;
  const at = bench.path(name);
  await mkdir(join(at, 'dist'), { recursive: true });
  for (const room of ['chunks', 'cli', 'mount']) {
    await cp(join(root, 'dist', room), join(at, 'dist', room), { recursive: true });
  }
  const facts = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  await writeFile(join(at, 'package.json'), JSON.stringify({ ...facts, version }));
  await symlink(join(root, 'node_modules'), join(at, 'node_modules'));
  return at;
}

async function upgradeByAnother(t: Test, bench: Bench): Promise<void> {
  const other = await install(bench, 'other', '9.8.7');
  const vbd = await bench.attach(await bench.image('disk.img', MIB, 4096));
  const { version: first } = await busInfo(bench);
  const upgraded = await bench.execute(process.execPath, [join(other, 'dist/cli/main.js'), 'upgrade']);
  t.match(upgraded, { status: 0, stdout: /^\d+\.\d ms pause; server 9\.8\.7, keeper / });
  const own = { keeper: first?.keeper, server: '9.8.7' };
  t.match(await busInfo(bench), { version: own });
  t.match(JSON.parse(await bench.succeed(['ls', '--json'])), [{ version: own }]);
  t.match(await bench.succeed(['show']), /^server +\d+, version 9\.8\.7$/m);
  t.match(await bench.succeed(['log']), /server-replaced .*why=upgrade .*version="9\.8\.7"$/m);
  const nextServer = async (version: string | null): Promise<void> => {
    const { restarts, serverPid } = await busInfo(bench);
    kill(serverPid ?? 0);
    const isNext = async (): Promise<BusInfo | false> => {
      const now = await busInfo(bench);
      return now.state === 'running' && now.restarts > restarts && now;
    };
    const { version: now } = await eventually('another server', 30_000, isNext);
    t.equal(now?.server, version);
  };
  await nextServer('9.8.7');
  await rename(other, bench.path('gone'));
  await nextServer(first?.server ?? null);
  await bench.sh('cmp -n 4096 "$1" disk.img', vbd);
}
