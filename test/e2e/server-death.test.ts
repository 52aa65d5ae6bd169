/**
 * The server dies: another takes its place, and clients see a pause, not an error. When servers die again and again, the
 * bus is given up: clients get an error instead of waiting for ever.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/bus/interface.js';
import { Client } from './client.js';
import { collect, eventually } from './command.js';
import { ALL_WAYS, type Bench, forEachDriver, onDefaultTransport, openBench, type TestDriver } from './fixtures.js';

t.setTimeout(360_000);

onDefaultTransport(t, ['fio', 'cmp'], async (t, transport) => {
  const skip = transport.abilities.restart ? false : 'this transport cannot replace a server';
  await t.test('under load', { skip }, (t) => forEachDriver(t, transport, verifyUnderKills, ALL_WAYS));
  await t.test('what the next server knows', { skip }, async (t) => knowAll(t, await openBench(t, transport)));
  await t.test('again and again', async (t) => giveUp(t, await openBench(t, transport)));
});

async function theVbd(bench: Bench): Promise<VbdInfo> {
  const [vbd] = await bench.list();
  if (vbd === undefined) throw new Error('the vbd is gone');
  return vbd;
}

/** Kills a process, which may be dead already. */
function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Kills the server, and waits for the next. */
async function killServer(bench: Bench): Promise<void> {
  const { serverPid } = await theVbd(bench);
  kill(serverPid as number);
  await eventually('another server', 10_000, async () => {
    const vbd = await theVbd(bench);
    return vbd.state === 'running' && vbd.serverPid !== serverPid;
  });
}

async function verifyUnderKills(t: Test, bench: Bench, { name, options }: TestDriver): Promise<void> {
  const sizeBytes = 16 << 20;
  const vbd = await bench.attach(...options, `${name}:${await bench.image('disk.img', sizeBytes)}`);
  const job = [
    '--name=kills',
    `--filename=${vbd}`,
    '--ioengine=libaio',
    '--iodepth=16',
    '--direct=1',
    '--rw=randwrite',
  ];
  const verify = ['--verify=crc32c', '--verify_fatal=1', '--verify_async=0', '--bssplit=4k/60:64k/20:1m/20'];
  const length = [`--size=${sizeBytes}`, '--time_based', '--runtime=3'];
  const child = bench.startProgram('fio', [...job, ...verify, ...length]);
  const end = collect(child);
  let kills = 0;
  while (child.exitCode === null && kills < 2) {
    await delay(500);
    await killServer(bench);
    kills += 1;
  }
  const { status, stdout, stderr } = await end;
  t.equal(status, 0, `${stderr}${stdout}`);
  t.equal((await theVbd(bench)).restarts, kills, 'ls tells how often');
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function knowAll(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const vbd = await bench.attach(`ram:${image}`);
  await bench.sh('chmod 640 "$1"; chown 12:34 "$1"; printf remembered | dd of="$1" conv=notrunc status=none', vbd);
  const [reader, writer] = [await Client.open(t, bench, 'read', vbd), await Client.open(t, bench, 'write', vbd)];
  t.equal(await writer.call('write', 100_000, 5000, 'b'), '5000');
  const attributes = 'stat -c "%i %a %u %g %s %X %Y %Z" "$1"';
  const before = await bench.sh(attributes, vbd);
  const { opens } = await theVbd(bench);

  await killServer(bench);

  t.equal(await bench.sh(attributes, vbd), before, 'node, mode, owner, size and times');
  t.equal(await bench.sh('head -c 10 "$1"', vbd), 'remembered', 'the memory of ram');
  t.equal(await reader.call('read', 100_000, 4096), '4096', 'files that were open stay open');
  t.equal(await writer.call('write', 0, 10, 'a'), '10');
  t.equal((await theVbd(bench)).opens, opens, 'and are counted');
  const refused = await bench.fusetap(['detach', 'xvda', '--json']);
  t.equal(refused.status, 4, 'and keep it from being detached');
  t.match(refused.stdout, new RegExp(`"pid": ${reader.pid}\\b`));
  await reader.release();
  t.equal((await bench.fusetap(['detach', 'xvda'])).status, 4, 'as long as one is left');
  await writer.release();
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function giveUp(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const vbd = await bench.attach(image);
  const client = await Client.open(t, bench, 'read', vbd);
  t.equal(await client.call('read', 0, 4096), '4096');
  for (let kills = 0; (await theVbd(bench)).state !== 'failed'; kills++) {
    if (kills === 12) return void t.fail('twelve servers that did nothing were not enough');
    const { serverPid } = await theVbd(bench);
    if (serverPid !== null) kill(serverPid);
    await delay(100);
  }
  const begun = performance.now();
  t.match(await client.call('read', 0, 4096), /connect|abort|Input\/output error/, 'an error, who had it open');
  t.match(await Client.tryOpen(t, bench, 'read', vbd), /connect|No such file/, 'and who comes');
  t.ok(performance.now() - begun < 5000, 'within seconds');
  t.match(await bench.fusetap(['attach', image, 'xvdb']), { status: 1, stderr: /has failed.*stop/ });
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
  t.equal(await bench.attach(image), vbd, 'and all is as at the start');
  await bench.sh('cmp "$1" "$2"', vbd, image);
}
