/**
 * Exports of vbds to real NBD clients: libnbd, QEMU, fio, and the driver nbd. The server of the bus is killed meanwhile, and
 * no client notices more than a pause.
 */
import { readFileSync } from 'node:fs';
import { readFile, truncate } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { COMMAND, OPTION } from '../../drivers/nbd/protocol.js';
import { makeCertificates } from '../drivers/nbd/certificates.js';
import { RawClient, requestBytes } from '../mount/export/client.js';
import { collect, eventually, type Outcome } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill, replaceServer } from './kill-server.js';
import { standStill } from './stand-still.js';

t.setTimeout(360_000);

const SIZE = 16 << 20;

onDefaultTransport(t, ['nbdinfo', 'nbdcopy', 'qemu-img', 'qemu-io', 'fio', 'openssl'], async (t, transport) => {
  await t.test('clients', async (t) => beClients(t, await openBench(t, transport)));
  await t.test('under kills', async (t) => verifyUnderKills(t, await openBench(t, transport)));
  await t.test('by the driver nbd', async (t) => attachExport(t, await openBench(t, transport)));
  await t.test('encrypted', async (t) => encrypt(t, await openBench(t, transport)));
  await t.test('after a resize', async (t) => grow(t, await openBench(t, transport)));
  for (const driver of ['aio', 'ram'])
    await t.test(`of a vbd that hangs, ${driver}`, async (t) => hang(t, await openBench(t, transport), driver));
  await t.test('how it ends', async (t) => end(t, await openBench(t, transport)));
  await t.test('what is wrong', async (t) => refuse(t, await openBench(t, transport)));
});

interface Export {
  readonly uri: string;
  readonly pid: number;
  signal(signal: NodeJS.Signals): void;
  readonly ended: Promise<Outcome>;
}

async function exported(t: Test, bench: Bench, ...words: string[]): Promise<Export> {
  const child = bench.startFusetap(['export', ...words], { timeoutMs: 300_000 });
  t.teardown(() => child.kill('SIGKILL'));
  const ended = collect(child);
  let said = '';
  child.stdout?.on('data', (text: string) => {
    said += text;
  });
  await eventually('the URI', 60_000, () => {
    if (child.exitCode !== null) throw new Error(`fusetap export ended with status ${child.exitCode}`);
    return said.endsWith('\n');
  });
  return { uri: said.trim(), pid: child.pid ?? 0, signal: (signal) => child.kill(signal), ended };
}

async function close(t: Test, { signal, ended }: Export): Promise<void> {
  signal('SIGTERM');
  t.match(await ended, { status: 0, stderr: '' });
}

async function beClients(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE >> 1);
  await bench.attach(image);
  const there = await exported(t, bench, 'xvda');
  const { uri } = there;
  t.match(uri, /^nbd\+unix:\/\/\/\?socket=.*nbd-xvda\.sock$/);
  const facts = JSON.parse(await bench.sh('nbdinfo --json "$1"', uri)) as { exports: object[] };
  t.match(facts.exports, [{ 'export-name': 'xvda', 'export-size': SIZE, is_read_only: false, can_multi_conn: true }]);
  const map = JSON.parse(await bench.sh('nbdinfo --map --json "$1"', uri)) as object[];
  t.match(map, [
    { offset: 0, length: SIZE >> 1, type: 0 },
    { offset: SIZE >> 1, length: SIZE >> 1, type: 3 },
  ]);
  await bench.sh('nbdcopy "$1" copy.img && cmp copy.img "$2"', uri, image);
  await bench.sh('qemu-img convert -f raw -O raw "$1" copy2.img && cmp copy2.img "$2"', uri, image);
  const steps = ['write -P 7 1M 64k', 'write -z 2M 1M', 'write -f -P 8 333 777', 'discard 4M 1M', 'flush'];
  await bench.execute('qemu-io', ['-f', 'raw', ...steps.flatMap((step) => ['-c', step]), uri]);
  const vbd = bench.path('runtime/bus/0/xvda');
  await bench.sh('sync "$1"; cmp "$1" "$2"', vbd, image);
  const bytes = await readFile(image);
  t.ok(bytes.subarray(1 << 20, (1 << 20) + 65536).every((byte) => byte === 7));
  t.ok(bytes.subarray(2 << 20, 3 << 20).every((byte) => byte === 0));
  t.ok(bytes.subarray(333, 333 + 777).every((byte) => byte === 8));
  t.ok(bytes.subarray(4 << 20, 5 << 20).every((byte) => byte === 0));
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 4, stderr: /in use by pid \d+ \(fusetap-export\)/ });
  t.match(await bench.succeed(['show', 'xvda']), /used by +pid \d+ \(fusetap-export\)/);
  await close(t, there);
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function verifyUnderKills(t: Test, bench: Bench): Promise<void> {
  for (const driver of ['aio', 'ram']) {
    await bench.attach(`${driver}:${await bench.image(`${driver}.img`, SIZE)}`);
    const there = await exported(t, bench, 'xvda', '--listen', '0');
    const job = ['--name=kills', '--ioengine=nbd', `--uri=${there.uri}`, '--iodepth=16', '--rw=randwrite'];
    const verify = ['--verify=crc32c', '--verify_fatal=1', '--verify_async=0', '--bssplit=4k/60:64k/20:1m/20'];
    const child = bench.startProgram('fio', [...job, ...verify, `--size=${SIZE}`, '--time_based', '--runtime=4']);
    const over = collect(child);
    let kills = 0;
    while (child.exitCode === null && kills < 4) {
      await delay(400);
      await replaceServer(bench);
      kills += 1;
    }
    const { status, stdout, stderr } = await over;
    t.equal(status, 0, `${driver}, ${kills} kills: ${stderr}${stdout}`);
    await close(t, there);
    await bench.detach('xvda');
  }
  t.same(await bench.traces(), []);
}

/** Our own client: a disk of one bus is a disk of another. */
async function attachExport(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  await bench.attach(image);
  const there = await exported(t, bench, 'xvda');
  const vbd = await bench.attach('--bus', 'far', there.uri, 'xvda', 'w');
  await bench.sh('cmp "$1" "$2"', vbd, image);
  await bench.sh('dd if=/dev/urandom of="$1" bs=64k seek=3 count=20 conv=notrunc,fsync status=none', vbd);
  await bench.sh('cmp "$1" "$2"', vbd, image);
  await bench.succeed(['detach', '--bus', 'far', 'xvda']);
  await close(t, there);
  await bench.detach('xvda');
}

/** While the server of the bus does nothing, clients come and go, and nothing of what was asked for is lost. */
async function hang(t: Test, bench: Bench, driver: string): Promise<void> {
  await bench.attach(`${driver}:${await bench.image('disk.img', SIZE, SIZE)}`);
  const there = await exported(t, bench, 'xvda');
  const socket = new URL(there.uri).searchParams.get('socket') ?? '';
  const client = await RawClient.connect(t, socket);
  await client.go();
  const { serverPid } = await busInfo(bench);
  await standStill(serverPid);
  const ask = (from: number): void => {
    for (let low = from; low < from + 20; low++) {
      const write = { command: COMMAND.write, length: 4096, offset: 4096 * low, cookie: { high: 0, low } };
      client.request(write, Buffer.alloc(4096, low));
    }
  };
  // the write is asked for first, and the flush in the same piece could have the lock of the file before it
  const first = { command: COMMAND.write, length: 4096, offset: 4096 * 40, cookie: { high: 0, low: 40 } };
  const flush = { command: COMMAND.flush, cookie: { high: 0, low: 100 } };
  client.send(requestBytes(first), Buffer.alloc(4096, 40), requestBytes(flush));
  // from the second round on, the flush has the lock of the file: writes must not wait for it on the event loop
  for (const from of [null, 0, 20]) {
    if (from !== null) ask(from);
    const other = await RawClient.connect(t, socket);
    await other.greet();
    other.option(OPTION.exportName);
    t.equal((await other.take(10)).readBigUInt64BE(0), BigInt(SIZE), 'another client begins meanwhile');
    other.request({ command: COMMAND.read, offset: SIZE, length: 1 });
    t.same(await other.simple(), { error: 22, low: 1 }, 'and gets answers');
    other.socket.destroy();
  }
  // the keeper may have replaced it
  if (serverPid !== null && !isGone(serverPid)) process.kill(serverPid, 'SIGCONT');
  const done = new Set<number>();
  for (let count = 0; count < 42; count++) {
    const { error, low } = await client.simple();
    t.equal(error, 0);
    done.add(low);
  }
  t.equal(done.size, 42);
  for (const low of [0, 19, 20, 39, 40]) {
    client.request({ command: COMMAND.read, offset: 4096 * low, length: 4096 });
    t.match(await client.simple(), { error: 0 });
    t.ok((await client.take(4096)).every((byte) => byte === low));
  }
  client.socket.destroy();
  await close(t, there);
  await bench.detach('xvda');
}

/** Clients that come after `fusetap resize` see the new size. */
async function grow(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  await bench.attach(image);
  const there = await exported(t, bench, 'xvda');
  t.equal(await bench.sh('nbdinfo --size "$1"', there.uri), String(SIZE));
  await truncate(image, 2 * SIZE);
  await bench.succeed(['resize', 'xvda']);
  t.equal(await bench.sh('nbdinfo --size "$1"', there.uri), String(2 * SIZE));
  const writes = ['-c', `write -P 9 ${2 * SIZE - 4096} 4k`, '-c', `write -z ${SIZE} 64k`, '-c', 'flush'];
  t.match(await bench.execute('qemu-io', ['-f', 'raw', ...writes, there.uri]), { status: 0 });
  await bench.sh('nbdcopy "$1" copy.img && cmp copy.img "$2"', there.uri, image);
  t.ok((await readFile(image)).subarray(-4096).every((byte) => byte === 9));
  await close(t, there);
  await bench.detach('xvda');
}

async function encrypt(t: Test, bench: Bench): Promise<void> {
  const files = makeCertificates();
  const image = await bench.image('disk.img', SIZE, SIZE);
  await bench.attach(image);
  const withCa = `tls-certificates=${files}&tls-hostname=localhost`;
  const portOf = ({ uri }: Export): string => /:(\d+)\//.exec(uri)?.[1] ?? '';
  const copies = (uri: string): Promise<Outcome> => bench.try('nbdcopy "$1" copy.img && cmp copy.img "$2"', uri, image);

  const open = await exported(t, bench, 'xvda', '--listen', 'localhost:0', '--tls', files);
  t.match(open.uri, /^nbds:\/\/127\.0\.0\.1:\d+\/$/);
  t.match(await copies(`nbds://localhost:${portOf(open)}/?tls-certificates=${files}`), { status: 0 }, 'libnbd');
  t.not((await copies(`nbd://localhost:${portOf(open)}/`)).status, 0, 'never without encryption');
  const plain = `nbds://127.0.0.1:${portOf(open)}/?${withCa}`;
  await bench.sh('cmp "$1" "$2"', await bench.attach('--bus', 'far', plain, 'xvda', 'r'), image);
  await bench.succeed(['detach', '--bus', 'far', 'xvda']);
  await close(t, open);

  const strict = await exported(t, bench, 'xvda', '--listen', '0', '--tls', files, '--tls-verify-peer');
  t.match(await copies(`nbds://localhost:${portOf(strict)}/?tls-certificates=${files}`), { status: 0 });
  const object = 'tls-creds-x509,id=t,endpoint=client,verify-peer=off';
  const qemu = `driver=raw,file.driver=nbd,file.host=localhost,file.port=${portOf(strict)},file.tls-creds=t`;
  const stranger = await bench.execute('qemu-img', ['info', '--object', object, '--image-opts', qemu]);
  t.not(stranger.status, 0, 'a client without a certificate');
  await close(t, strict);

  const keyed = await exported(t, bench, 'xvda', '--listen', '0', '--tls-psk', `${files}/keys.psk`);
  const psk = `tls-psk-file=${files}/keys.psk`;
  t.match(await copies(`nbds://bob@localhost:${portOf(keyed)}/?${psk}`), { status: 0 }, 'libnbd with a key');
  await bench.sh(
    'cmp "$1" "$2"',
    await bench.attach('--bus', 'far', `nbds://alice@127.0.0.1:${portOf(keyed)}/?${psk}`, 'xvda', 'r'),
    image,
  );
  await bench.succeed(['detach', '--bus', 'far', 'xvda']);
  await bench.sh('printf "bob:%032d\\n" 1 > wrong.psk');
  const wrong = `nbds://bob@localhost:${portOf(keyed)}/?tls-psk-file=${bench.path('wrong.psk')}`;
  t.not((await copies(wrong)).status, 0, 'the wrong key');
  await close(t, keyed);
  await bench.detach('xvda');
}

/** The process that serves: a child of the command. */
function exporterOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
}

const isGone = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
};

async function end(t: Test, bench: Bench): Promise<void> {
  await bench.attach(await bench.image('disk.img', SIZE));
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) {
    const there = await exported(t, bench, 'xvda');
    there.signal(signal);
    t.match(await there.ended, { status: 0, stderr: '' }, signal);
    t.equal((await bench.try('nbdinfo "$1"', there.uri)).status, 1, 'nobody listens');
  }
  await t.test('a command that is killed takes its exporter with it', async (t) => {
    const there = await exported(t, bench, 'xvda');
    const exporter = exporterOf(there.pid);
    t.notOk(isGone(exporter));
    there.signal('SIGKILL');
    await there.ended;
    await eventually('the exporter has ended', 60_000, () => isGone(exporter));
    await (await exported(t, bench, 'xvda')).signal('SIGTERM');
  });
  await t.test('an exporter that is killed is told', async (t) => {
    const there = await eventually('its socket is free', 60_000, () => exported(t, bench, 'xvda').catch(() => false));
    if (typeof there === 'boolean') return;
    kill(exporterOf(there.pid));
    t.match(await there.ended, { status: 1, stderr: /the exporter was killed/ });
  });
  await bench.detach('xvda');
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  await bench.attach('--driver', 'aio', '--image', await bench.image('disk.img', SIZE), '--mode', 'r');
  const readOnly = await exported(t, bench, 'xvda');
  t.match(await bench.sh('nbdinfo "$1"', readOnly.uri), /is_read_only: true/);
  const busy = await bench.fusetap(['export', 'xvda']);
  t.match(busy, { status: 4, stderr: /another program listens at/ });
  await close(t, readOnly);
  const refused = async (status: number, stderr: RegExp, ...words: string[]): Promise<void> => {
    t.match(await bench.fusetap(['export', ...words]), { status, stdout: '', stderr }, words.join(' '));
  };
  await refused(3, /xvdq/, 'xvdq');
  await refused(2, /cannot be used together/, 'xvda', '--socket', 's', '--listen', '1');
  await refused(2, /--tls-verify-peer/, 'xvda', '--tls-verify-peer');
  await refused(2, /at most 107 bytes/, 'xvda', '--socket', 'x'.repeat(200));
  await refused(5, /other machines can reach 0\.0\.0\.0/, 'xvda', '--listen', '0.0.0.0:0');
  await refused(3, /server-cert\.pem/, 'xvda', '--tls', bench.path('.'));
  const json = await exported(t, bench, 'xvda', '--json', '--name', 'other');
  t.match(JSON.parse(json.uri), { uri: /^nbd\+unix:/, name: 'other', readOnly: true });
  await close(t, json);
  await bench.detach('xvda');
}
