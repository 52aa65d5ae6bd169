/**
 * Disks on real NBD servers, while servers of the bus and NBD servers die and stop. Clients see a pause, never wrong data;
 * an fsync that says OK is true.
 */
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { type NbdServer, nbdkit, qemuNbd, uriOf, whyNoServers } from '../drivers/nbd/servers.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { type Bench, whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { Crashes } from './crashes.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';

const skip = whyNot('fio') || whyNoServers();
const LIMIT_MS = 60_000;
/** how often the stale write is tried with each server */
const ROUNDS = Number(process.env.FUSETAP_NBD_ROUNDS ?? 2);
const KILLS = Number(process.env.FUSETAP_NBD_KILLS ?? 5);

t.setTimeout(600_000 + 30_000 * ROUNDS + 10_000 * KILLS);

interface Served {
  readonly bus: Bus;
  readonly bench: Bench;
  readonly server: NbdServer;
  readonly vbd: VbdInfo;
}

type Make = (bench: Bench, socket: string) => Promise<NbdServer[]> | NbdServer[];

async function started(t: Test, make: Make, bench: Bench, socket: string): Promise<NbdServer> {
  const servers = await make(bench, socket);
  for (const server of servers) {
    t.teardown(() => server.kill());
    await server.start();
  }
  return servers.at(-1) as NbdServer;
}

async function attached(
  t: Test,
  make: Make,
  options: Record<string, string> = {},
  env: Record<string, string> = {},
): Promise<Served> {
  const bus = await startBus(t, env);
  const { bench } = bus;
  const socket = bench.path('nbd.sock');
  const server = await started(t, make, bench, socket);
  const vbd = await bus.attach({ driver: 'nbd', image: null, options: { uri: uriOf(socket), ...options } });
  return { bus, bench, server, vbd };
}

// with more threads, nbdkit 1.32 may fail an assertion (raw_send_socket) and end when a client dies
const raw: Make = async (bench, socket) => [
  nbdkit(socket, ['--threads=1', 'file', await bench.image('disk.img', FIO_DISK_BYTES)]),
];
const qcow2: Make = (bench, socket) => {
  const image = bench.path('disk.qcow2');
  if (!existsSync(image)) execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, String(FIO_DISK_BYTES)]);
  return [qemuNbd(socket, ['-f', 'qcow2', image])];
};

// ── the servers of the bus die ─────────────────────────────────────────────────────────────────────────────────────────

for (const [name, make] of Object.entries({ 'nbdkit file': raw, 'qemu-nbd qcow2': qcow2 })) {
  void t.test(`${name}: servers of the bus are killed and replaced under load`, { skip }, async (t) => {
    const { bus, bench, vbd } = await attached(t, make);
    const fio = new Verifier(bench, vbd.path);
    await bus.disturb(KILLS, 'kill');
    await bus.disturb(2, 'upgrade');
    provesIntact(t, await fio.end(), name);
    t.notMatch(await bus.log(), /writes-lost|reconnecting/, 'the NBD server was never gone');
    const { vbds } = await bus.detach(vbd.vdev);
    t.equal(vbds[0]?.error, undefined, 'and everything is durable');
  });
}

/** Its first write waits for the file `go`; all others are done at once. */
const SLOW = `#!/bin/sh
cd "$(dirname "$0")"
case "$1" in
  thread_model) echo parallel;;
  get_size) stat -c %s slow.img;;
  can_write) exit 0;;
  pread) dd if=slow.img iflag=skip_bytes,count_bytes skip="$4" count="$3" status=none;;
  pwrite)
    data=$(mktemp ./data.XXXXXX); cat > "$data"
    if mkdir first 2> /dev/null; then
      touch began
      i=0; while [ ! -e go ] && [ $i -lt 600 ]; do sleep 0.1; i=$((i + 1)); done
      dd if="$data" of=slow.img oflag=seek_bytes seek="$4" conv=notrunc status=none
      touch done
    else dd if="$data" of=slow.img oflag=seek_bytes seek="$4" conv=notrunc status=none
    fi
    rm "$data";;
  *) exit 2;;
esac
`;

const slow: Make = async (bench, socket) => {
  await bench.image('slow.img', 1 << 20);
  writeFileSync(bench.path('slow.sh'), SLOW);
  chmodSync(bench.path('slow.sh'), 0o755);
  return [nbdkit(socket, ['sh', bench.path('slow.sh')])];
};
const behindQemu =
  (...words: string[]): Make =>
  async (bench, socket) => {
    const below = bench.path('below.sock');
    const options = `driver=raw,file.driver=nbd,file.server.type=unix,file.server.path=${below}`;
    return [...(await slow(bench, below)), qemuNbd(socket, [...words, '--image-opts', options])];
  };

for (const [name, make] of Object.entries({
  nbdkit: slow,
  'qemu-nbd, one client': behindQemu(),
  'qemu-nbd, four clients': behindQemu('-e', '4'),
})) {
  void t.test(`${name}: an old write never overtakes a newer one`, { skip }, async (t) => {
    for (let round = 1; round <= ROUNDS; round++) {
      await t.test(`round ${round}`, async (t) => {
        const { bus, bench, vbd } = await attached(t, make);
        const [first, second] = [
          await Client.open(t, bench, 'write', vbd.path),
          await Client.open(t, bench, 'write', vbd.path),
        ];
        let isAnswered = false;
        const old = first.call('write', 0, 4096, 'A').finally(() => {
          isAnswered = true;
        });
        await eventually('the NBD server works on it', LIMIT_MS, async () => existsSync(bench.path('began')));
        await bus.killServer();
        // a server that does not wait for the old write answers soon, and then it is too early
        for (let tries = 0; tries < 20 && !isAnswered; tries++) await delay(50);
        t.notOk(isAnswered, 'the write is not answered while an older copy of it may come');
        if (isAnswered) await second.call('write', 0, 4096, 'B');
        writeFileSync(bench.path('go'), '');
        await old;
        if (existsSync(bench.path('done'))) await second.call('write', 0, 4096, 'B');
        await eventually('the old write is done', LIMIT_MS, async () => existsSync(bench.path('done')));
        t.equal(await second.call('text', 0, 3), 'BBB', 'the newer write stays');
      });
    }
  });
}

// ── the NBD server dies ────────────────────────────────────────────────────────────────────────────────────────────────

for (const durable of ['no', 'yes']) {
  const title = durable === 'no' ? 'one failed fsync for each handle' : 'durable=yes: no failed fsync';
  void t.test(`the NBD server is killed and comes back under load: ${title}`, { skip }, async (t) => {
    const { bus, bench, server, vbd } = await attached(t, raw, { durable });
    const handles = [await Client.open(t, bench, 'write', vbd.path), await Client.open(t, bench, 'write', vbd.path)];
    const fio = new Verifier(bench, vbd.path);
    await handles[0]?.call('write', 0, 512, 'x');
    await server.kill();
    await delay(300);
    await server.start();
    provesIntact(t, await fio.end(), 'nbdkit file');
    for (const handle of handles) {
      t.equal(await handle.call('fsync'), durable === 'no' ? 'Input/output error' : 'ok', 'the first fsync');
      t.equal(await handle.call('fsync'), 'ok', 'the second');
    }
    t.equal(/writes-lost/.test(await bus.log()), durable === 'no');
    t.match(await bus.log(), /reconnected vdev=xvda/);
  });
}

void t.test('what a killed qemu-nbd has lost is told', { skip }, async (t) => {
  const { bench, server, vbd } = await attached(t, qcow2);
  const handle = await Client.open(t, bench, 'write', vbd.path);
  for (let i = 0; i < 20; i++) await handle.call('write', i * 65_536, 4096, 'x');
  await server.kill();
  await server.start();
  t.equal(await handle.call('fsync'), 'Input/output error');
  await handle.call('write', 0, 4096, 'y');
  t.equal(await handle.call('fsync'), 'ok');
});

void t.test('a takeover whose NBD server dies meanwhile tells the loss', { skip }, async (t) => {
  const { bus, bench, server, vbd } = await attached(t, raw);
  const handle = await Client.open(t, bench, 'write', vbd.path);
  await handle.call('write', 0, 4096, 'x');
  await bus.killServer();
  await server.kill();
  await server.start();
  t.equal(await handle.call('fsync'), 'Input/output error');
  t.equal(await handle.call('fsync'), 'ok');
});

void t.test('a takeover alone loses nothing', { skip }, async (t) => {
  const { bus, bench, vbd } = await attached(t, qcow2);
  const handle = await Client.open(t, bench, 'write', vbd.path);
  await handle.call('write', 0, 4096, 'x');
  await bus.killServer();
  t.equal(await handle.call('fsync'), 'ok');
});

void t.test('a bus without a server knows what is not durable', { skip }, async (t) => {
  for (const isFlushed of [false, true]) {
    const crashes = new Crashes();
    const env = { ...crashes.env, FUSETAP_START_LIMIT_MS: '500' };
    const { bus, bench, vbd } = await attached(t, raw, {}, env);
    const handle = await Client.open(t, bench, 'write', vbd.path);
    await handle.call('write', 0, 4096, 'x');
    if (isFlushed) await handle.call('fsync');
    crashes.arm('load', 0, 200);
    await bus.beginKill();
    await eventually('the bus has failed', LIMIT_MS, async () => (await bus.info()).state === 'failed');
    await handle.release();
    const { vbds } = await bus.detach(vbd.vdev);
    const said = vbds[0]?.error?.message;
    if (isFlushed) t.equal(said, undefined, 'all was flushed');
    else t.match(said, /was not flushed/, 'not all was flushed');
  }
});

// ── the NBD server does not answer ─────────────────────────────────────────────────────────────────────────────────────

void t.test('a stopped NBD server holds no other vbd of the bus', { skip }, async (t) => {
  const { bus, bench, server, vbd } = await attached(t, raw);
  const other = await bus.attach({ driver: 'aio', image: await bench.image('other.img', 1 << 20), passthrough: 'off' });
  const hung = await Client.open(t, bench, 'write', vbd.path);
  const free = await Client.open(t, bench, 'read', other.path);
  await server.pause();
  const waiting = hung.call('write', 0, 4096, 'x');
  await bus.killServer();
  const begun = performance.now();
  t.equal(await free.call('read', 0, 4096), '4096');
  t.comment(`it answers after ${Math.round(performance.now() - begun)} ms`);
  await eventually('the state is told', LIMIT_MS, async () => {
    const { vbds } = await bus.info();
    return vbds.find(({ vdev }) => vdev === vbd.vdev)?.state === 'reconnecting';
  });
  await t.rejects(bus.detach(vbd.vdev), { code: 'BUSY', message: /reconnecting since/ });
  server.resume();
  t.equal(await waiting, '4096', 'and the request that waited is answered');
  t.equal(await hung.call('fsync'), 'ok');
});

void t.test('a vbd whose NBD server hangs is shown, and can be detached by force', { skip }, async (t) => {
  const { bus, bench, server, vbd } = await attached(t, raw);
  const handle = await Client.open(t, bench, 'write', vbd.path);
  await server.pause();
  const waiting = handle.call('write', 0, 4096, 'x');
  await eventually('the state is told', LIMIT_MS, async () => (await bus.info()).vbds[0]?.state === 'reconnecting');
  t.match((await bus.info()).vbds[0]?.reconnecting, { reason: /has not answered/ });
  await t.rejects(bus.detach(vbd.vdev), { code: 'BUSY', message: /reconnecting since/ });
  t.equal((await bus.detach(vbd.vdev, '?force=1')).vbds.length, 1);
  t.equal(await waiting, 'Input/output error', 'the request that the server has fails');
});

void t.test('a vbd whose NBD server is gone can be detached by force', { skip }, async (t) => {
  const { bus, bench, server, vbd } = await attached(t, raw);
  const handle = await Client.open(t, bench, 'write', vbd.path);
  await server.kill();
  const waiting = handle.call('write', 0, 4096, 'x');
  await eventually('the state is told', LIMIT_MS, async () => (await bus.info()).vbds[0]?.state === 'reconnecting');
  await bus.killServer();
  await eventually(
    'and by the next server',
    LIMIT_MS,
    async () => (await bus.info()).vbds[0]?.state === 'reconnecting',
  );
  t.match((await bus.info()).vbds[0]?.reconnecting, { reason: /ENOENT|ECONNREFUSED/ });
  const { vbds } = await bus.detach(vbd.vdev, '?force=1');
  t.equal(vbds.length, 1);
  t.equal(await waiting, 'Input/output error', 'the request that waited fails');
});
