/**
 * Rule 7: the size is fixed, whatever call tries to change it; and an operation that the image below cannot do fails with
 * an errno for the caller only. test/e2e/files.test.ts has the common calls.
 */
import t, { type Test } from 'tap';
import { patternBytes } from '../conformance/pattern.js';
import { eventually } from '../e2e/command.js';
import { MAP_SHARED, PROT_READ, PROT_READ_WRITE } from './caller.js';
import {
  asked,
  attachFor,
  BY_THREADS,
  type Ground,
  O_APPEND,
  O_DIRECT,
  O_DSYNC,
  O_RDONLY,
  O_RDWR,
  O_SYNC,
  O_TRUNC,
  prepareGround,
  WAYS,
  type Way,
  whyNotRules,
} from './fixture.js';

t.setTimeout(120_000);

/** no multiple of a block, a sector or a page */
const SIZE = (1 << 20) + 1300;
const RWF_APPEND = 0x10;

/** A vbd in one of the ways, with a descriptor of the client's. */
interface Subject extends Ground {
  readonly way: Way;
  readonly path: string;
  readonly image: string;
  readonly fd: number;
}

void t.test('rule 7: the size is fixed', { skip: whyNotRules('nbdkit', 'nbdfuse', 'fusermount3') }, async (t) => {
  const ground = await prepareGround(t);
  for (const way of WAYS) {
    await t.test(way.label, async (t) => {
      const image = await ground.bench.image(`${way.driver}-${way.passthrough}.img`, SIZE, SIZE);
      const { path } = await attachFor(t, ground.a, { ...asked(way), image });
      const subject = { ...ground, way, path, image, fd: await ground.caller.open(path, O_RDWR) };
      await t.test('the kinds of open', (t) => openWays(t, subject));
      await t.test('fallocate', (t) => allocate(t, subject));
      await t.test('sendfile, splice and copy_file_range', (t) => copyByKernel(t, subject));
      if (growsItsImage(way)) await t.test('the end of a file that is passed through', (t) => growImage(t, subject));
      else await t.test('the end', (t) => stopAtTheEnd(t, subject));
      t.equal(await subject.caller.call('size', subject.fd), SIZE, 'at the end of all');
    });
  }
  await t.test('mode r, passed through', (t) => refuseWriting(t, ground));
  for (const way of BY_THREADS.filter(({ writesImage }) => writesImage)) {
    await t.test(`an image that shrinks: ${way.label}`, (t) => shrink(t, ground, way));
    await t.test(`an image on a full file system: ${way.label}`, (t) => fillUp(t, ground, way));
  }
  await t.test('an image that vanishes', (t) => vanish(t, ground));
  await t.test('an image that a failing disk is below', (t) => failBelow(t, ground));
});

/** Neither a seal nor a server is there to stop a write past the end. */
const growsItsImage = ({ driver, passthrough }: Way): boolean => passthrough === 'on' && driver !== 'ram';
/** What a call that needs place behind the end comes to. */
const refusal = ({ passthrough }: Way): string => (passthrough === 'on' ? 'EPERM' : 'ENOSPC');

async function openWays(t: Test, { caller, way, path }: Subject): Promise<void> {
  // a file that is passed through meets the alignment of its file system
  const at = growsItsImage(way) ? 4096 : 5001;
  const length = growsItsImage(way) ? 512 : 777;
  for (const [name, flag] of Object.entries({ O_SYNC, O_DSYNC, O_DIRECT, O_APPEND })) {
    const fd = await caller.open(path, O_RDWR | flag);
    const aligned = flag !== O_DIRECT || !growsItsImage(way);
    const bytes = patternBytes(at, length, flag % 251);
    if (flag === O_APPEND && growsItsImage(way)) continue;
    const want = flag === O_APPEND ? refusal(way) : length;
    const written = await caller.call('pwrite', fd, at, bytes);
    // the client must also align its buffer
    if (aligned || written !== 'EINVAL') t.equal(written, want, name);
    if (written === length) t.same(await caller.call('pread', fd, at, length), bytes, `${name} is read back`);
    await caller.call('close', fd);
  }
  for (const flags of [O_RDWR | O_TRUNC, O_RDONLY | O_TRUNC]) {
    const fd = await caller.open(path, flags);
    t.equal(await caller.call('size', fd), SIZE, 'O_TRUNC is ignored');
    await caller.call('close', fd);
  }
  const fd = await caller.open(path, O_RDWR);
  for (const size of [1, SIZE - 1, SIZE + 1, 2 ** 40]) {
    t.equal(await caller.call('truncate', path, size), 'EPERM', `truncate to ${size}`);
    t.equal(await caller.call('ftruncate', fd, size), 'EPERM', `ftruncate to ${size}`);
  }
  t.equal(await caller.call('truncate', path, 0), null, 'to be emptied: ignored');
  t.equal(await caller.call('ftruncate', fd, 0), null, 'to be emptied by a handle: ignored');
  t.equal(await caller.call('size', fd), SIZE);
  await caller.call('close', fd);
  t.equal(await caller.call('truncate', path, SIZE), null, 'to the size that it has');
}

async function allocate(t: Test, { caller, fd }: Subject): Promise<void> {
  const model = (await caller.call('pread', fd, 0, SIZE)) as Buffer;
  const [keep, punch, collapse, zero, insert, unshare] = [1, 2, 8, 0x10, 0x20, 0x40];
  const end = Math.floor(SIZE / 4096) * 4096;
  for (const mode of [0, keep]) {
    t.equal(await caller.call('fallocate', fd, mode, 1000, 5000), 0, `mode ${mode} inside`);
    t.equal(await caller.call('fallocate', fd, mode, SIZE - 10, 10), 0, `mode ${mode} up to the end`);
    for (const [at, length] of [
      [SIZE - 10, 11],
      [SIZE, 1],
      [end, 1 << 20],
      [2 ** 41, 4096],
    ] as const) {
      t.equal(await caller.call('fallocate', fd, mode, at, length), 'ENOSPC', `mode ${mode}: ${length} at ${at}`);
    }
  }
  let at = 10_000;
  for (const mode of [punch | keep, zero, zero | keep]) {
    t.equal(await caller.call('fallocate', fd, mode, at, 9001), 0, `mode ${mode}`);
    model.fill(0, at, at + 9001);
    at += 20_000;
    t.equal(await caller.call('fallocate', fd, mode, SIZE - 100, 5000), 0, `mode ${mode} is cut at the end`);
    t.equal(await caller.call('fallocate', fd, mode, SIZE + 4096, 5000), 0, `mode ${mode} behind it is nothing`);
  }
  model.fill(0, SIZE - 100);
  for (const mode of [punch, collapse, insert, unshare, unshare | keep, collapse | keep, 0x100]) {
    t.match(await caller.call('fallocate', fd, mode, 4096, 4096), /^(EOPNOTSUPP|EINVAL)$/, `mode ${mode} is unknown`);
  }
  t.ok(model.equals((await caller.call('pread', fd, 0, SIZE + 4096)) as Buffer), 'all else is as it was');
  t.equal(await caller.call('size', fd), SIZE);
}

async function copyByKernel(t: Test, { bench, caller, fd, way }: Subject): Promise<void> {
  const source = await caller.open(await bench.image(`source-${way.driver}-${way.passthrough}`, 8192, 8192), O_RDWR);
  const bytes = patternBytes(0, 8192, 1);
  const there = (): Promise<unknown> => caller.call('pread', fd, 3001, 8000);
  const clear = (): Promise<unknown> => caller.call('pwrite', fd, 3001, Buffer.alloc(8000));

  t.equal(await caller.call('splice_into', source, 100, fd, 3001, 8000), 8000, 'splice into the vbd');
  t.ok(bytes.subarray(100, 8100).equals((await there()) as Buffer));
  t.ok(bytes.subarray(100, 8100).equals((await caller.call('splice', fd, 3001, 8000)) as Buffer), 'and out of it');
  t.ok(bytes.subarray(100, 8100).equals((await caller.call('sendfile', fd, 3001, 8000)) as Buffer), 'sendfile');
  await clear();
  await caller.call('lseek', fd, 3001, 0);
  t.equal(await caller.call('sendfile_into', fd, source, 100, 8000), 8000, 'sendfile into the vbd');
  t.ok(bytes.subarray(100, 8100).equals((await there()) as Buffer));
  t.equal(await caller.call('copy_file_range', fd, 3001, fd, 50_000, 8000), 8000, 'copy_file_range within it');
  t.ok(bytes.subarray(100, 8100).equals((await caller.call('pread', fd, 50_000, 8000)) as Buffer));
  t.match(
    await caller.call('copy_file_range', fd, 3001, source, 0, 10),
    'EXDEV',
    'to another file system: cp reads on',
  );

  for (const [call, ...words] of [
    ['splice', fd, SIZE, 100],
    ['sendfile', fd, SIZE, 100],
  ] as const) {
    t.same(await caller.call(call, ...words), Buffer.alloc(0), `${call} from the end on is nothing`);
  }
  if (growsItsImage(way)) return;
  t.equal(await caller.call('splice_into', source, 0, fd, SIZE, 100), refusal(way), 'splice behind the end');
  const last = await caller.call('splice_into', source, 0, fd, SIZE - 50, 100);
  if (way.passthrough === 'off') t.equal(last, 50, 'splice across the end');
  t.equal(await caller.call('copy_file_range', fd, 0, fd, SIZE, 100), refusal(way), 'copy_file_range behind it');
  await caller.call('close', source);
}

async function stopAtTheEnd(t: Test, { caller, fd, way }: Subject): Promise<void> {
  const more = Buffer.alloc(4096, 'm');
  for (const at of [SIZE, SIZE + 1, SIZE + 4096, 2 ** 40]) {
    t.equal(await caller.call('pwrite', fd, at, more), refusal(way), `write at ${at}`);
  }
  t.equal(await caller.call('pwritev2', fd, 0, more, RWF_APPEND), refusal(way), 'RWF_APPEND');
  if (way.passthrough === 'off') t.equal(await caller.call('pwrite', fd, SIZE - 10, more), 10, 'across the end');
  // seals work on whole pages, so they do not refuse the rest of the last page
  else t.equal(await caller.call('pwrite', fd, SIZE - 10, more), 'EPERM', 'across the end');
  t.equal(await caller.call('lseek', fd, 0, 2), SIZE, 'SEEK_END');
}

/** The kernel knows no size here: users of `--passthrough on` accept that. */
async function growImage(t: Test, { bench, caller, fd, image }: Subject): Promise<void> {
  t.equal(await caller.call('pwrite', fd, SIZE + 100, Buffer.from('more')), 4, 'a write behind the end');
  t.equal(await bench.sh('stat -c %s "$1"', image), String(SIZE + 104), 'grows the image');
  await bench.sh('truncate -s "$1" "$2"', String(SIZE), image);
}

async function refuseWriting(t: Test, { bench, a, caller }: Ground): Promise<void> {
  for (const driver of ['aio', 'sync', 'ram'] as const) {
    const image = await bench.image(`read-only-${driver}.img`, SIZE, SIZE);
    const vbd = await attachFor(t, a, { driver, image, mode: 'r', passthrough: 'on' });
    t.equal(vbd.passthrough, true);
    for (const flags of [O_RDWR, O_RDWR | O_TRUNC, O_RDONLY | O_TRUNC, O_RDWR | O_APPEND]) {
      t.equal(await caller.call('open', vbd.path, flags), 'EROFS', `${driver}, flags ${flags}`);
    }
    t.match(await caller.call('truncate', vbd.path, 0), /^(EROFS|EPERM)$/, 'truncate');
    const fd = await caller.open(vbd.path, O_RDONLY);
    t.equal(await caller.call('pwrite', fd, 0, Buffer.from('x')), 'EBADF');
    t.equal(await caller.call('fallocate', fd, 3, 0, 4096), 'EBADF');
    t.equal(await caller.call('mmap', fd, 4096, PROT_READ_WRITE, MAP_SHARED), 'EACCES', 'no mapping to write to');
    const map = (await caller.call('mmap', fd, 4096, PROT_READ, MAP_SHARED)) as number;
    t.same(await caller.call('mread', map, 4096), patternBytes(0, 4096, 1), 'one to read from');
    await caller.call('munmap', map, 4096);
    await caller.call('close', fd);
    await bench.sh('cmp "$1" "$2"', vbd.path, image);
  }
}

/** Two vbds on a bus: what is below the first goes wrong, the second must not notice. */
async function withNeighbour(t: Test, { bench, a, caller }: Ground): Promise<(when: string) => Promise<void>> {
  const image = await bench.image('neighbour.img', SIZE, SIZE);
  const fd = await caller.open((await attachFor(t, a, { driver: 'aio', image })).path, O_RDWR);
  return async (when) => {
    t.equal(await caller.call('pwrite', fd, 5000, patternBytes(5000, 3000, 1)), 3000, `the neighbour, ${when}`);
    t.same(await caller.call('pread', fd, 4000, 5000), patternBytes(4000, 5000, 1));
    t.equal(await caller.call('fsync', fd), null);
  };
}

async function shrink(t: Test, ground: Ground, way: Way): Promise<void> {
  const { bench, a, caller } = ground;
  const neighbourWorks = await withNeighbour(t, ground);
  const image = await bench.image(`shrinks-${way.driver}.img`, SIZE, SIZE);
  const { path, vdev } = await attachFor(t, a, { ...asked(way), image });
  const fd = await caller.open(path, O_RDWR);
  await bench.sh('truncate -s 500001 "$1"', image);
  t.same(await caller.call('pread', fd, 100, 4000), patternBytes(100, 4000, 1), 'what is left is read');
  for (const [at, length] of [
    [500_001, 1],
    [500_000, 4096],
    [900_000, 100],
    [SIZE - 1, 1],
  ] as const) {
    t.equal(await caller.call('pread', fd, at, length), 'EIO', `${length} bytes at ${at}`);
  }
  for (const whence of [3, 4]) t.equal(await caller.call('lseek', fd, 800_000, whence), 'EIO', 'it is no hole');
  t.equal(await caller.call('size', fd), SIZE);
  await neighbourWorks('after the image shrank');
  t.match(await a.info(), { state: 'running', restarts: 0 });
  t.equal((await a.info()).vbds.find((vbd) => vbd.vdev === vdev)?.changedOutside, true, 'ls tells');
  await bench.sh('truncate -s "$1" "$2"', String(SIZE), image);
  t.equal(await caller.call('pwrite', fd, 0, Buffer.from('on')), 2, 'mended, it works again');
  await caller.call('close', fd);
}

async function fillUp(t: Test, ground: Ground, way: Way): Promise<void> {
  const { bench, a, caller } = ground;
  const neighbourWorks = await withNeighbour(t, ground);
  const directory = await bench.makeDirectory(`tmpfs-${way.driver}`);
  await bench.sh('mount -t tmpfs -o size=2M none "$1"; truncate -s 8M "$1/sparse.img"', directory);
  const { path, vdev } = await a.attach({ ...asked(way), image: `${directory}/sparse.img` });
  const fd = await caller.open(path, O_RDWR);
  let written = 0;
  for (;;) {
    const answer = await caller.call('pwrite', fd, written, patternBytes(written, 200_000, 3));
    if (typeof answer !== 'number') {
      t.equal(answer, 'ENOSPC', 'the errno of the file system');
      break;
    }
    written += answer;
  }
  t.ok(written >= 1 << 20 && written <= 2 << 20, `${written} bytes were taken`);
  for (let at = 0; at < written; at += 100_000) {
    const length = Math.min(100_000, written - at);
    const read = (await caller.call('pread', fd, at, length)) as Buffer;
    t.ok(read.equals(patternBytes(at, length, 3)), `what was acknowledged at ${at} is there`);
  }
  t.equal(await caller.call('fallocate', fd, 0, 4 << 20, 1 << 20), 'ENOSPC');
  await neighbourWorks('beside a full file system');
  t.equal(await caller.call('fallocate', fd, 3, 0, 1 << 20), 0, 'a punch gives space back');
  t.equal(await caller.call('pwrite', fd, 6 << 20, patternBytes(0, 100_000, 3)), 100_000, 'which can be written');
  t.equal(await caller.call('fsync', fd), null);
  await caller.call('close', fd);
  await a.detach(vdev, '?wait=5');
  await bench.sh('umount "$1"', directory);
}

async function vanish(t: Test, { bench, a, caller }: Ground): Promise<void> {
  const image = await bench.image('vanishes.img', SIZE, SIZE);
  const { path, vdev } = await attachFor(t, a, { driver: 'aio', image });
  const fd = await caller.open(path, O_RDWR);
  await bench.sh('ln "$1" kept; rm "$1"', image);
  t.equal(await caller.call('pwrite', fd, 7, Buffer.from('after')), 5, 'it is written as before');
  await a.killServer();
  t.same(await caller.call('pread', fd, 7, 5), Buffer.from('after'), 'by the next server too');
  t.equal(await caller.call('fsync', fd), null);
  await caller.call('close', fd);
  t.match((await a.detach(vdev, '?wait=5')).vbds, [{ vdev, changedOutside: true }], 'detach tells');
  t.equal(await bench.sh('tail -c +8 kept | head -c 5'), 'after');
}

/** A disk of nbdkit's that fails on demand, as a file by nbdfuse. */
async function failBelow(t: Test, ground: Ground): Promise<void> {
  const { bench, a, caller } = ground;
  const neighbourWorks = await withNeighbour(t, ground);
  const directory = await bench.makeDirectory('nbd');
  const fails = bench.path('fails');
  const disk = ['--filter=error', 'memory', '4M', 'error=EIO', 'error-rate=100%', `error-file=${fails}`];
  const nbdfuse = bench.startProgram('nbdfuse', [
    `${directory}/disk`,
    '[',
    'nbdkit',
    '--exit-with-parent',
    ...disk,
    ']',
  ]);
  const ended = new Promise((resolve) => nbdfuse.once('close', resolve));
  await eventually(
    'nbdfuse serves',
    10_000,
    async () => (await bench.try('test -s "$1"', `${directory}/disk`)).status === 0,
  );
  const { path, vdev } = await a.attach({ driver: 'aio', image: `${directory}/disk` });
  const fd = await caller.open(path, O_RDWR);
  const bytes = patternBytes(0, 70_000, 9);
  t.equal(await caller.call('pwrite', fd, 4096, bytes), bytes.length);
  t.equal(await caller.call('fsync', fd), null);
  await bench.sh('touch "$1"', fails);
  t.equal(await caller.call('pread', fd, 1 << 20, 4096), 'EIO', 'read');
  t.equal(await caller.call('pwrite', fd, 1 << 20, bytes), 'EIO', 'write');
  await neighbourWorks('beside a disk that fails');
  await bench.sh('rm "$1"', fails);
  t.ok(bytes.equals((await caller.call('pread', fd, 4096, bytes.length)) as Buffer), 'what was acknowledged is there');
  t.match(await a.info(), { state: 'running' });
  await caller.call('close', fd);
  await a.detach(vdev, '?wait=5');
  await bench.sh('fusermount3 -u "$1"', directory);
  await ended;
}
