/**
 * If the runtime directory cannot be written, the bus goes on, reports it, and writes its files later. In these tests
 * the runtime directory is a small file system of its own, which is filled, or in which no file can be made.
 */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { askBus } from '../../mount/control/http-client.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { eventually, output } from '../e2e/command.js';
import { type Bench, JUST_USER, onDefaultTransport, openBench, type TestTransport } from '../e2e/fixtures.js';
import { USER_ID } from '../e2e/runners.js';
import { type Bus, startBusOn } from './bus.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const WRITE = 'dd if=/dev/urandom of="$1" bs=1M seek="$2" count=80 conv=notrunc,fsync status=none';

onDefaultTransport(t, ['dd', 'mount'], full, JUST_USER);
onDefaultTransport(t, ['dd', 'mount'], lastVbd);
onDefaultTransport(t, ['dd', 'mount', 'chattr'], unwritable);

/** Opens a bench whose runtime directory is a small tmpfs. */
async function smallRuntime(t: Test, transport: TestTransport): Promise<Bench> {
  const bench = await openBench(t, transport);
  const options = transport.runner === undefined ? 'mode=755' : `mode=700,uid=${USER_ID},gid=${USER_ID}`;
  await bench.makeDirectory('runtime');
  await output('mount', ['-t', 'tmpfs', '-o', `size=1m,${options}`, 'small', bench.runtimeDir]);
  return bench;
}

async function fill(bench: Bench): Promise<void> {
  const { stderr } = await bench.try('cat /dev/zero > "$1"', join(bench.runtimeDir, 'fill'));
  if (!/No space/.test(stderr)) throw new Error(`not full: ${stderr}`);
}

/** Traces of buses, without the small file system itself. */
const traces = async (bench: Bench): Promise<string[]> =>
  (await bench.traces()).filter((trace) => !trace.includes('tmpfs'));

const end = async (bench: Bench): Promise<void> => void (await output('umount', [bench.runtimeDir]));

async function bookkeeping(bus: Bus): Promise<string | null | undefined> {
  return (await bus.info()).bookkeeping;
}

async function full(t: Test, transport: TestTransport): Promise<void> {
  const bench = await smallRuntime(t, transport);
  const bus = await startBusOn(bench);
  const names = ['a.img', 'b.img', 'c.img', 'd.img'];
  const [a, b, c, d] = (await Promise.all(names.map((name) => bench.image(name, 4 * MIB, 1000)))) as [
    string,
    string,
    string,
    string,
  ];
  const ram = await bus.attach({ driver: 'ram', image: await bench.image('ram.img', 256 * MIB), passthrough: 'off' });
  t.equal(await bookkeeping(bus), null);
  await fill(bench);

  const vbd = await bus.attach({ driver: 'aio', image: a });
  t.match(await bookkeeping(bus), /bus\.json: ENOSPC/, 'show reports it');
  t.match(await bench.succeed(['show']), /not written +bus\.json: ENOSPC/);
  const refused = await bench.fusetap(['attach', `ram:${c}`]);
  t.match(refused, { status: 7, stderr: /cannot tell other buses of the ram image/ });
  t.match(await bus.info(), { vbds: [{ vdev: ram.vdev }, { vdev: vbd.vdev }] }, 'the refused vbd is not attached');
  await bench.succeed(['pause', vbd.vdev]);
  const body = { driver: 'aio', image: b, share: null, options: {} };
  t.match(await askBus<VbdInfo>(bus.place, { method: 'POST', path: `/vbds/${vbd.vdev}/swap`, body }), { image: b });
  await bench.succeed(['resume', vbd.vdev]);
  await bench.succeed(['save', ram.vdev, bench.path('copy.img')]);
  await bench.sh('cmp -n 4194304 "$1" copy.img', ram.path);
  await bench.sh(WRITE, ram.path, '0');
  t.match(await bus.detach(vbd.vdev), { vbds: [{ vdev: vbd.vdev }] });
  const again = await bus.attach({ driver: 'sync', image: d });

  process.kill((await bus.info()).keeperPid as number, 'SIGKILL');
  const orphan = await eventually('the server is an orphan', 20_000, async () => {
    const info = await bus.info().catch(() => undefined);
    return info?.state === 'orphaned' ? info : undefined;
  });
  t.match(orphan.bookkeeping, /ENOSPC/);
  await bench.sh(WRITE, ram.path, '100');
  t.equal(await bench.sh('head -c 5 "$1" | wc -c', again.path), '5');
  await bench.detach(again.vdev);
  await rm(join(bench.runtimeDir, 'fill'));
  await eventually('it is written', 20_000, async () => (await bookkeeping(bus)) === null);
  t.match(await readdir(join(bench.runtimeDir, 'ram')), [/\.\d+$/], 'the memory can be found');
  t.match(await bench.succeed(['memory']), new RegExp(`0:${ram.vdev}`), 'by name');
  await bench.detach(ram.vdev);
  t.same(await traces(bench), [], 'the orphan has ended');
  await end(bench);
}

async function lastVbd(t: Test, transport: TestTransport): Promise<void> {
  const bench = await smallRuntime(t, transport);
  await bench.attach(await bench.image('a.img', MIB));
  await fill(bench);
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 0 }, 'the detach of the last vbd');
  const path = await bench.attach(await bench.image('b.img', MIB));
  t.equal(await bench.sh('head -c 5 "$1" | wc -c', path), '5', 'a bus can be started');
  t.match(await bench.fusetap(['stop']), { status: 0 });
  t.same(await bench.busProcesses(), [], 'the bus has ended');
  t.same((await readdir(join(bench.runtimeDir, 'state'))).length, 0);
  await end(bench);
}

async function unwritable(t: Test, transport: TestTransport): Promise<void> {
  const bench = await smallRuntime(t, transport);
  const bus = await startBusOn(bench);
  const vbd = await bus.attach({ driver: 'ram', image: await bench.image('ram.img', 64 * MIB), passthrough: 'off' });
  // the file system cannot be remounted read-only while the log is open for writing, but directories can be immutable
  const directories = ['state/0', 'ram'].map((name) => join(bench.runtimeDir, name));
  await output('chattr', ['+i', ...directories]);
  const image = await bench.image('a.img', MIB);
  const path = await bus.attach({ driver: 'aio', image });
  t.match(await bookkeeping(bus), /bus\.json: EPERM/);
  await bench.sh('dd if=/dev/urandom of="$1" bs=1M count=60 conv=notrunc status=none', vbd.path);
  await bus.detach(path.vdev);
  await bus.detach(vbd.vdev);
  await output('chattr', ['-i', ...directories]);
  await eventually('it is written', 20_000, async () => (await bookkeeping(bus)) === null);
  await bench.succeed(['stop']);
  t.same(await traces(bench), []);
  await end(bench);
}
