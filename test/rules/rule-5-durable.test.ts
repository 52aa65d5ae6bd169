/**
 * Rule 5: data that was promised durable is durable, whenever the power fails. The test traces all calls of server and
 * client on the image and the vbd, and cuts the trace after each event. At each cut it assumes the worst: the image has
 * only the data that a flush of its file made durable. All data that was promised to the client by then must be there.
 */
import t, { type Test } from 'tap';
import { eventually } from '../e2e/command.js';
import { Caller } from './caller.js';
import {
  asked,
  attachFor,
  type Ground,
  O_DIRECT,
  O_DSYNC,
  O_RDWR,
  O_SYNC,
  prepareGround,
  WAYS,
  type Way,
  whyNotRules,
} from './fixture.js';
import { isTraced, readTrace, type TraceEvent, traceWords } from './trace.js';

t.setTimeout(120_000);

const SIZE = 4 << 20;
const CALLS = ['pwrite64', 'pwritev2', 'pwritev', 'fsync', 'fdatasync', 'fallocate'];
const RWF_DSYNC = 2;
const PUNCH = 3;
const ZERO = 0x10;

void t.test('rule 5: durable', { skip: whyNotRules('strace', 'losetup', 'mkfs.ext4') }, async (t) => {
  const ground = await prepareGround(t);
  for (const way of WAYS.filter(({ writesImage }) => writesImage)) {
    await t.test(way.label, (t) => cutEverywhere(t, ground, way));
  }
  for (const passthrough of ['off', 'on'] as const) {
    const name = `a full disk below: each open file is told once, and so is detach, passthrough ${passthrough}`;
    await t.test(name, (t) => fillBelow(t, ground, passthrough));
  }
  await t.test('ram promises nothing, and waits for nothing', (t) => flushMemory(t, ground));
});

async function cutEverywhere(t: Test, { bench, a }: Ground, way: Way): Promise<void> {
  const image = await bench.image(`${way.driver}-${way.passthrough}.img`, SIZE, SIZE);
  const vbd = await a.attach({ ...asked(way), image });
  const serverPid = await a.serverPid();
  const output = bench.path(`trace-${way.driver}-${way.passthrough}`);
  const caller = Caller.start(t, bench, traceWords(output, [serverPid], CALLS));
  await eventually('strace follows the server', 10_000, () => isTraced(serverPid));
  const durableFds = await writeAndFlush(t, caller, vbd.path);
  await a.detach(vbd.vdev, '?wait=5');
  process.kill(caller.pid, 'SIGTERM');
  await caller.end();

  const trace = await readTrace(output);
  const found = replay(trace, { image, vbd: vbd.path, way, durableFds });
  t.same(found.lost, [], 'nothing is lost at any cut');
  t.ok(found.promised >= (way.driver === 'sync' ? 36 : 30), `${found.promised} of 36 were promised before the detach`);
  t.equal(found.unflushed, 0, 'and a detach that returned has flushed what was left');
}

/** 36 changes of the disk, in every way that there is to be told that one is durable; some are followed by none. */
async function writeAndFlush(t: Test, caller: Caller, path: string): Promise<number[]> {
  const plain = await caller.open(path, O_RDWR);
  const other = await caller.open(path, O_RDWR);
  const direct = await caller.open(path, O_RDWR | O_DIRECT);
  const dsync = [await caller.open(path, O_RDWR | O_DSYNC), await caller.open(path, O_RDWR | O_SYNC)];
  let at = 0;
  const write = async (fd: number, call = 'pwrite', ...more: number[]): Promise<void> => {
    // all lengths are multiples of 512, for aio that is passed through meets the alignment of the file system
    const length = 4096 * (1 + (at % 7));
    t.equal(await caller.call(call, fd, at, Buffer.alloc(length, serial(at)), ...more), length);
    at += length;
  };
  for (let round = 0; round < 4; round++) {
    await write(plain);
    await write(other);
    t.equal(await caller.call(round % 2 ? 'fsync' : 'fdatasync', plain), null, 'a flush through one file is of all');
    for (const fd of dsync) await write(fd);
    await write(plain, 'pwritev2', RWF_DSYNC);
    await caller.call('fallocate', plain, round % 2 ? PUNCH : ZERO, at, 8192);
    at += 8192;
    if (round < 3) t.equal(await caller.call('fsync', other), null);
    await write(plain);
    if (round < 3) t.equal(await caller.call('fsync', direct), null);
    for (const fd of dsync) await write(fd);
  }
  for (const fd of [plain, other, direct, ...dsync]) await caller.call('close', fd);
  return dsync;
}

const serial = (at: number): string => String(at).padStart(8, '0');

interface Subject {
  readonly image: string;
  readonly vbd: string;
  readonly way: Way;
  /** descriptors of the client that it opened with O_DSYNC or O_SYNC */
  readonly durableFds: readonly number[];
}

/** A change of the disk: where, how far. */
type Change = string;

interface Found {
  /** what a cut would lose though it was promised, with where the cut is */
  readonly lost: string[];
  /** how many changes were promised durable while attached */
  readonly promised: number;
  /** how many were not flushed at the end */
  readonly unflushed: number;
}

/** What is done, and what of it is durable: of the image truly, of the vbd by promise. */
class Side {
  readonly done = new Set<Change>();
  readonly durable = new Set<Change>();
  /** what was done when a flush began that is under way, by the process */
  readonly #flushing = new Map<number, Change[]>();

  add(change: Change, durable: boolean): void {
    this.done.add(change);
    if (durable) this.durable.add(change);
  }

  flush({ phase, pid, result }: TraceEvent): void {
    if (phase === 'begin') this.#flushing.set(pid, [...this.done]);
    else if (result === 0) for (const change of this.#flushing.get(pid) ?? []) this.durable.add(change);
  }
}

/** Goes through the trace event by event, as through cuts. */
function replay(trace: readonly TraceEvent[], subject: Subject): Found {
  const { way } = subject;
  const [image, vbd] = [new Side(), new Side()];
  const lost: string[] = [];
  for (const event of trace) {
    const side = event.path === subject.image ? image : event.path === subject.vbd ? vbd : null;
    if (side === null) continue;
    if (/^f(data)?sync$/.test(event.call)) side.flush(event);
    else if (event.phase === 'end' && (event.result ?? -1) >= 0) {
      const durable = isDurable(event, subject);
      side.add(changeOf(event), durable || (side === vbd && way.driver === 'sync'));
      // passed through, a write to the vbd is one to the image, in the same call
      if (side === vbd && way.passthrough === 'on' && event.call !== 'fallocate') image.add(changeOf(event), durable);
    }
    for (const change of vbd.durable) {
      if (!image.durable.has(change)) lost.push(`${change} after the ${event.phase} of ${event.call}(${event.words})`);
    }
  }
  const unflushed = [...vbd.done].filter((change) => !image.durable.has(change)).length;
  return { lost: lost.slice(0, 5), promised: vbd.durable.size, unflushed };
}

function isDurable({ call, words, path }: TraceEvent, { vbd, durableFds }: Subject): boolean {
  if (call === 'pwritev2' && words.includes('RWF_DSYNC')) return true;
  return path === vbd && call !== 'fallocate' && durableFds.includes(Number.parseInt(words, 10));
}

function changeOf({ call, words, result }: TraceEvent): Change {
  if (call !== 'fallocate') return `${Number(/"(\d{8})"/.exec(words)?.[1])}+${result}`;
  const [at, count] = words.split(', ').slice(-2);
  return `${at}+${count} zeroed`;
}

/** What it takes into its cache it cannot write back: the file of a loop device is on a file system that is full. */
async function fillBelow(t: Test, ground: Ground, passthrough: 'on' | 'off'): Promise<void> {
  const { bench, a, caller } = ground;
  const { image, clear } = await makeSpoiled(ground, passthrough);
  const neighbour = await attachFor(t, a, {
    driver: 'aio',
    image: await bench.image(`neighbour-${passthrough}.img`, SIZE),
  });
  const vbd = await a.attach({ driver: 'aio', image, passthrough });
  const [first, second, other] = [
    await caller.open(vbd.path, O_RDWR),
    await caller.open(vbd.path, O_RDWR),
    await caller.open(neighbour.path, O_RDWR),
  ];
  const block = Buffer.alloc(1 << 20, 'x');
  for (let at = 0; at < 4 << 20; at += block.length) {
    t.equal(await caller.call('pwrite', first, at, block), block.length, 'it is taken into the cache');
  }
  t.match(await caller.call('fsync', second), /^(EIO|ENOSPC)$/, 'who flushes is told');
  t.match(await caller.call('fsync', first), /^(EIO|ENOSPC)$/, 'and who wrote');
  const late = await caller.open(vbd.path, O_RDWR);
  t.equal(await caller.call('fsync', late), null, 'who opened it later has lost nothing');
  t.equal(await caller.call('pwrite', other, 0, block), block.length, 'the neighbour does not notice');
  t.equal(await caller.call('fsync', other), null);
  for (const fd of [first, second, late, other]) await caller.call('close', fd);

  const { status, stderr } = await bench.fusetap(['detach', '--bus', 'a', '--wait', '5', vbd.vdev]);
  t.equal(status, 1, 'detach tells too');
  t.match(stderr, new RegExp(`^fusetap: detached ${vbd.vdev} of bus a, but not all is durable: [^\\n]+\\n$`));
  await clear();
}

/** A block device; or a file, which can be passed through, on a file system on such a device. */
async function makeSpoiled({ bench }: Ground, passthrough: 'on' | 'off') {
  const full = await bench.makeDirectory(`full-${passthrough}`);
  await bench.sh('mount -t tmpfs -o size=2M none "$1"; truncate -s 16M "$1/below.img"', full);
  if (passthrough === 'off') {
    const device = await bench.loop(`${full}/below.img`);
    return { image: device, clear: () => bench.sh('losetup -d "$1"; umount "$2"', device, full) };
  }
  // no journal: the file system itself must not notice
  await bench.sh('mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=0 "$1/below.img"; mkdir "$1/on-it"', full);
  const device = await bench.loop(`${full}/below.img`);
  const place = `${full}/on-it`;
  await bench.sh('mount "$1" "$2"; fallocate -l 6M "$2/disk.img"; sync -f "$2"', device, place);
  await bench.sh('dd if=/dev/zero of="$1/filler" bs=4k status=none 2>&- || true', full);
  const clear = () => bench.sh('umount "$2"; losetup -d "$1"; umount "$3"', device, place, full);
  return { image: `${place}/disk.img`, clear };
}

async function flushMemory(t: Test, { bench, a, caller }: Ground): Promise<void> {
  const image = await bench.image('memory.img', SIZE);
  for (const passthrough of ['on', 'off'] as const) {
    const { path } = await attachFor(t, a, { driver: 'ram', image, passthrough });
    const fd = await caller.open(path, O_RDWR | O_DSYNC);
    t.equal(await caller.call('pwrite', fd, 0, Buffer.alloc(4096, 1)), 4096);
    for (const call of ['fsync', 'fdatasync']) t.equal(await caller.call(call, fd), null, `${call}, ${passthrough}`);
    await caller.call('close', fd);
  }
}
