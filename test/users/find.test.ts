/** What people wanted when they looked for a disk, its users, or its bus. */
import t, { type Test } from 'tap';
import { readStartTime } from '../../system/proc.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';
import { busInfo, kill } from '../e2e/kill-server.js';

t.setTimeout(300_000);

const MIB = 1 << 20;

type Wish = (t: Test, bench: Bench) => Promise<void>;

const WISHES: Record<string, Wish> = {
  'finds out whether an image is attached, and where, as losetup -j does': findImage,
  'detaches the disk below a loop device, without knowing its bus': detachByLoop,
  'learns who keeps an image busy, before touching it': nameUsers,
  'a script learns that a bus has crashed, and still gets the healthy disks': listAfterCrash,
  'a service with a private mount namespace: is told where its disk is': lookIntoNamespace,
};

onDefaultTransport(t, ['losetup', 'mkfs.ext4', 'unshare'], async (t, transport) => {
  for (const [name, wish] of Object.entries(WISHES)) {
    await t.test(name, async (t) => wish(t, await openBench(t, transport)));
  }
});

// losetup(8), -j
async function findImage(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const isAttached = async (word: string): Promise<unknown[]> =>
    JSON.parse(await bench.succeed(['ls', '--json', word]));
  t.same(await isAttached(image), [], 'it is not: an empty list, and exit status 0');
  const path = await bench.attach('--bus', 'somewhere', `ram:${image}`);
  await bench.sh('ln -s disk.img link.img');
  for (const word of [image, 'disk.img', './link.img']) t.match(await isAttached(word), [{ path }], word);
  t.match(await bench.fusetap(['ls', 'no-such.img']), { status: 3 }, 'a typing error is not an empty list');
  await bench.detach('link.img');
  t.same(await isAttached(image), []);
}

async function detachByLoop(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const loop = await bench.loop(await bench.attach('--bus', 'a-name-nobody-remembers', image));
  t.match(await bench.fusetap(['detach', loop]), { status: 4, stderr: new RegExp(`in use by ${loop}: `) });
  const { path } = JSON.parse(await bench.succeed(['show', '--json', loop])) as { path: string };
  await bench.sh('losetup -d "$1"', loop);
  t.match(await bench.fusetap(['detach', path]), { status: 0, stderr: '' });
  t.same(await bench.list(), []);
}

async function nameUsers(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 16 * MIB);
  await bench.sh('mkfs.ext4 -q -F "$1"', image);
  const vbd = await bench.attach('--passthrough', 'off', image);
  const mnt = await bench.makeDirectory('mnt');
  await bench.sh('mount -r "$1" "$2"', vbd, mnt);
  const client = await Client.open(t, bench, 'read', vbd);
  await bench.attach('--bus', 'upper', `${vbd},xvdc,r`);
  const [loop] = await bench.loops();
  const text = await bench.succeed(['show', image]);
  const users = text.split('\n').filter((line) => line.startsWith('used by'));
  const expected = [`pid ${client.pid} (perl)`, 'bus upper as xvdc', `${loop} mounted on ${mnt}`];
  t.same(users.map((line) => line.replace(/^used by +/, '')).sort(), expected.sort());
  await client.release();
  await bench.sh('umount "$1"', mnt);
  t.match(await bench.fusetap(['stop', '--all']), { status: 0 });
}

// epam/cloud-pipeline #4334
async function listAfterCrash(t: Test, bench: Bench): Promise<void> {
  await bench.attach('--bus', 'crashed', await bench.image('one.img', MIB));
  const path = await bench.attach('--bus', 'healthy', await bench.image('two.img', MIB));
  const { keeperPid, serverPid } = await busInfo(bench, 'crashed');
  for (const pid of [keeperPid, serverPid]) if (pid !== null) kill(pid);
  await eventually('both are gone', 10_000, () => readStartTime(serverPid ?? 0) === null);
  const { status, stdout } = await bench.fusetap(['ls', '--json']);
  t.match(JSON.parse(stdout), [{ path }]);
  t.equal(status, 1, 'the exit status says that the list is incomplete');
  const states = JSON.parse(await bench.succeed(['ls', '--buses', '--json'])) as { bus: string; state: string }[];
  t.same(
    states.map(({ bus, state }) => `${bus} ${state}`),
    ['crashed dead', 'healthy running'],
  );
  t.match(await bench.fusetap(['detach', 'two.img']), { status: 0 }, 'it can be detached');
  await bench.succeed(['stop', '--bus', 'crashed']);
}

// systemd/systemd #28723
async function lookIntoNamespace(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', MIB);
  const script = '"$0" "$1" attach --bus private "$2" >path && exec 7<"$(cat path)" && echo ready && read -r _';
  const words = ['--mount', 'sh', '-c', script, process.execPath, bench.program, image];
  const service = bench.startProgram('unshare', words, { timeoutMs: 120_000 });
  await new Promise((resolve) => service.stdout?.once('data', resolve));
  try {
    const { stdout, stderr } = await bench.fusetap(['show', '--json', image]);
    t.match(stderr, /bus\/private is mounted in the mount namespace of pid \d+, not in this one\n$/);
    t.match(JSON.parse(stdout), { bus: 'private', mounts: [], holders: [{ pid: service.pid, command: 'sh' }] });
  } finally {
    service.stdin?.end('\n');
    await bench.fusetap(['stop', '--bus', 'private', '--wait', '10']);
  }
}
