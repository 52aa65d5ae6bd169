/**
 * Large writes into images that are in memory, which do not wait for one another: while their bus is held and loses its
 * server, while another grows and shrinks, each byte that was acknowledged is there, and the image tells that it changed.
 */
import { readFile, stat, truncate } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { busInfo, kill, replaceServer } from './kill-server.js';

t.setTimeout(120_000);

const IMAGE_BYTES = 64 << 20;

for (const driver of ['aio', 'ram'] as const) {
  t.test(`large writes to ${driver}`, (t) => {
    onDefaultTransport(t, ['fio'], async (t, transport) => writeLarge(t, await openBench(t, transport), driver));
    t.end();
  });
}

interface Written {
  readonly driver: 'aio' | 'ram';
  readonly image: string;
  readonly vbd: string;
}

for (const isOrphan of [false, true]) {
  t.test(`an image that shrinks while it is written${isOrphan ? ' by an orphan' : ''}`, (t) => {
    onDefaultTransport(t, ['fio'], async (t, transport) => shrink(t, await openBench(t, transport), isOrphan));
    t.end();
  });
}

async function writeLarge(t: Test, bench: Bench, driver: 'aio' | 'ram'): Promise<void> {
  await bench.begin();
  await bench.sh('mkdir memory; mount -t tmpfs none memory');
  const image = await bench.image('memory/disk.img', IMAGE_BYTES, IMAGE_BYTES);
  const vbd = await bench.attach('--passthrough', 'off', `${driver}:${image}`, 'xvda');
  t.not(await mappingsOf(bench, image, driver), 0, 'it is mapped, or this shows nothing');
  const writing = bench.execute('fio', fio(vbd));
  for (let times = 0; times < 4; times++) {
    await bench.succeed(['pause', 'xvda']);
    await bench.succeed(['resume', 'xvda']);
    if (times % 2 === 1) await replaceServer(bench);
  }
  const { status, stderr } = await writing;
  t.equal(status, 0, stderr);
  t.match(await busInfo(bench), { state: 'running', restarts: 2 });
  if (driver === 'aio') await tellTime(t, bench, image, vbd);
  await dieOfImage(t, bench, { driver, image, vbd });
  await bench.detach('--wait', '10', 'xvda');
  t.equal(await mappingsOf(bench, image, driver), 0, 'and no longer when it is gone');
}

async function shrink(t: Test, bench: Bench, isOrphan: boolean): Promise<void> {
  await bench.sh('mkdir memory; mount -t tmpfs none memory');
  const image = await bench.image('memory/disk.img', IMAGE_BYTES, IMAGE_BYTES);
  const other = await bench.image('memory/other.img', 1 << 20, 1 << 20);
  const vbd = await bench.attach(image, 'xvda');
  const neighbour = await bench.attach(other, 'xvdb');
  const job = ['--name=large', `--filename=${vbd}`, `--size=${IMAGE_BYTES}`, '--allow_file_create=0', '--rw=randwrite'];
  const size = ['--bs=512k', '--ioengine=libaio', '--iodepth=16', '--direct=1', '--thread'];
  const tolerant = ['--continue_on_error=all', '--time_based', '--runtime=1', '--output-format=terse'];
  const { keeperPid } = await busInfo(bench);
  if (isOrphan && keeperPid !== null) kill(keeperPid);
  let isWriting = true;
  const writing = bench.execute('fio', [...job, ...size, ...tolerant]).finally(() => {
    isWriting = false;
  });
  let times = 0;
  for (; isWriting; times++) {
    await truncate(image, times % 2 === 0 ? 4096 * (times % 64) : IMAGE_BYTES);
    await setImmediate();
  }
  await writing;
  t.ok(times > 100, `it shrank and grew, ${times} times in all`);
  await truncate(image, IMAGE_BYTES);
  const { state, restarts } = await busInfo(bench);
  t.equal(state, isOrphan ? 'orphaned' : 'running');
  // by chance
  t.ok(restarts <= 1, `one server has died of it, or none: ${restarts}`);
  await bench.sh('cmp "$1" "$2"; dd if="$1" of="$3" bs=1M conv=notrunc status=none', neighbour, other, vbd);
  await bench.sh('cmp -n 1048576 "$1" "$2"', neighbour, vbd);
  await bench.detach('--wait', '10', 'xvda', 'xvdb');
}

/** For a second or two, of all sizes; each block says itself what it is. */
function fio(vbd: string): string[] {
  const job = ['--name=large', `--filename=${vbd}`, `--size=${IMAGE_BYTES}`, '--allow_file_create=0', '--rw=randwrite'];
  const size = ['--bsrange=4k-1m', '--ioengine=libaio', '--iodepth=16', '--direct=1', '--thread', '--rate=48m'];
  return [...job, ...size, '--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--output-format=terse'];
}

/** A backup looks at the times of an image. */
async function tellTime(t: Test, bench: Bench, image: string, vbd: string): Promise<void> {
  const before = await stat(image, { bigint: true });
  await bench.sh('sleep 0.02; dd if=/dev/urandom of="$1" bs=256k count=1 conv=notrunc status=none', vbd);
  const after = await stat(image, { bigint: true });
  t.ok(after.mtimeNs > before.mtimeNs && after.ctimeNs > before.ctimeNs, 'one large write moves its times');
}

/** What kills a server whose image shrinks in the wrong microsecond: once is enough. */
async function dieOfImage(t: Test, bench: Bench, { driver, image, vbd }: Written): Promise<void> {
  const { serverPid, restarts } = await busInfo(bench);
  if (serverPid === null) throw new Error('the bus has no server');
  process.kill(serverPid, 'SIGBUS');
  await bench.sh('dd if=/dev/urandom of="$1" bs=256k count=9 conv=notrunc status=none; cmp -n 65536 "$1" "$1"', vbd);
  t.match(await busInfo(bench), { state: 'running', restarts: restarts + 1 });
  const mapped = await mappingsOf(bench, image, driver);
  t.equal(mapped > 0, driver === 'ram', 'the next server maps what cannot shrink, and no files');
}

/** How many mappings the bus's server has of the image, or of any memory of vbds. */
async function mappingsOf(bench: Bench, image: string, driver: 'aio' | 'ram'): Promise<number> {
  const { serverPid } = await busInfo(bench);
  const lines = (await readFile(`/proc/${serverPid}/maps`, 'latin1')).split('\n');
  const size = lines.filter((line) => line.includes(driver === 'aio' ? image : '/memfd:'));
  return size.filter((line) => lengthOf(line) === IMAGE_BYTES).length;
}

function lengthOf(line: string): number {
  const [from = '', to = ''] = line.split(' ', 1).join().split('-');
  return Number.parseInt(to, 16) - Number.parseInt(from, 16);
}
