/**
 * The server dies: another takes its place, and clients see a pause, not an error. When servers die again and again, the
 * bus is given up: clients get an error instead of waiting for ever.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { Client } from './client.js';
import { collect, eventually } from './command.js';
import {
  ALL_WAYS,
  type Bench,
  forEachDriver,
  OTHERS_ON_BOTH,
  onDefaultTransport,
  openBench,
  shareOut,
  type TestDriver,
  type TestTransport,
} from './fixtures.js';
import { busInfo, kill, replaceServer } from './kill-server.js';

t.setTimeout(360_000);

onDefaultTransport(t, ['fio', 'cmp'], die, OTHERS_ON_BOTH);

async function die(t: Test, transport: TestTransport): Promise<void> {
  if (transport.abilities.restart) {
    const drivers = shareOut(transport, ALL_WAYS);
    await t.test('under load', (t) => forEachDriver(t, transport, verifyUnderKills, drivers));
    await t.test('what the next server knows', async (t) => knowAll(t, await openBench(t, transport)));
  }
  await t.test('again and again', async (t) => giveUp(t, await openBench(t, transport)));
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
    await replaceServer(bench);
    kills += 1;
  }
  const { status, stdout, stderr } = await end;
  t.equal(status, 0, `${stderr}${stdout}`);
  t.match(await bench.list(), [{ restarts: kills }], 'ls tells how often');
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function knowAll(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const vbd = await bench.attach(`ram:${image}`);
  // others have nobody to give a file to
  if (bench.transport.runner === undefined) await bench.sh('chown 12:34 "$1"', vbd);
  await bench.sh('chmod 640 "$1"; printf remembered | dd of="$1" conv=notrunc status=none', vbd);
  const [reader, writer] = [await Client.open(t, bench, 'read', vbd), await Client.open(t, bench, 'write', vbd)];
  t.equal(await writer.call('write', 100_000, 5000, 'b'), '5000');
  const attributes = 'stat -c "%i %a %u %g %s %X %Y %Z" "$1"';
  const before = await bench.sh(attributes, vbd);
  // the kernel tells of a close after close(2) has returned
  const isOpenTwice = () =>
    eventually('two open files', 20_000, async () => (await busInfo(bench)).vbds[0]?.opens === 2);
  await isOpenTwice();

  await replaceServer(bench);

  t.equal(await bench.sh(attributes, vbd), before, 'node, mode, owner, size and times');
  t.equal(await bench.sh('head -c 10 "$1"', vbd), 'remembered', 'the memory of ram');
  t.equal(await reader.call('read', 100_000, 4096), '4096', 'files that were open stay open');
  t.equal(await writer.call('write', 0, 10, 'a'), '10');
  await isOpenTwice();
  const refused = await bench.fusetap(['detach', 'xvda', '--json']);
  t.equal(refused.status, 4, 'and keep it from being detached');
  t.match(refused.stdout, new RegExp(`"pid": ${reader.pid}\\b`));
  await reader.release();
  t.equal((await bench.fusetap(['detach', 'xvda'])).status, 4, 'as long as one is left');
  await writer.release();
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

/** Servers that are killed before they have read a request are started anew for ten minutes; here for two seconds. */
async function giveUp(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const env = { FUSETAP_START_LIMIT_MS: '2000' };
  const vbd = await bench.succeed(['attach', ...bench.transport.options, image], { env });
  const client = await Client.open(t, bench, 'read', vbd);
  t.equal(await client.call('read', 0, 4096), '4096');
  const killed = new Set<number>();
  await eventually('the bus to fail', 60_000, async () => {
    const { state, serverPid } = await busInfo(bench);
    if (serverPid !== null && !killed.has(serverPid) && state !== 'failed') {
      killed.add(serverPid);
      kill(serverPid);
    }
    return state === 'failed';
  });
  const most = bench.transport.abilities.restart ? 16 : 1;
  t.ok(killed.size <= most && (most === 1 || killed.size >= 5), `${killed.size} servers were killed`);
  t.match(await client.call('read', 0, 4096), /connect|abort|Input\/output error/, 'an error, who had it open');
  t.match(await Client.tryOpen(t, bench, 'read', vbd), /connect|No such file/, 'and who comes');
  t.match(await bench.fusetap(['attach', image, 'xvdb']), { status: 1, stderr: /has failed.*stop/ });
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
  t.equal(await bench.attach(image), vbd, 'and all is as at the start');
  await bench.sh('cmp "$1" "$2"', vbd, image);
}
