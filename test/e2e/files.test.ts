/**
 * A vbd as a file among files: what each system call on it does. Its size is fixed, to the byte; it cannot be replaced,
 * removed or emptied; all else is as with a file.
 */
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import type { Abilities } from '../../mount/transport/transport.js';
import { Client, cannotMap } from './client.js';
import { isInstalled } from './command.js';
import {
  ALL_WAYS,
  type Bench,
  forEachTransport,
  OTHERS_ON_BOTH,
  openBench,
  type TestDriver,
  type TestTransport,
} from './fixtures.js';

t.setTimeout(360_000);

/** no multiple of a block, a sector or a page */
const SIZE = (2 << 20) + 1300;

interface Subject {
  readonly bench: Bench;
  readonly driver: TestDriver;
  readonly image: string;
  readonly vbd: string;
  /** the kernel does the I/O by itself */
  readonly passedThrough: boolean;
}

type Story = (t: Test, subject: Subject) => Promise<void>;
/** By their names; some need something that not every transport can do. */
type Stories = Record<string, Story | { readonly needs: keyof Abilities; readonly story: Story }>;

/** on one vbd, one after another */
const STORIES: Stories = {
  'reads stop at the end': readAtTheEnd,
  'writes stop at the end': writeAtTheEnd,
  'no call changes the size': keepSize,
  'mode, owner and times can be set': setAttributes,
  'one time can be set alone': { needs: 'singleTimes', story: setOneTime },
  'the directory cannot be changed': keepDirectory,
  'direct I/O at any alignment': readAndWriteDirect,
  mappings: mapFile,
  'durable writes': writeDurable,
  'programs that ask a block device its size': { needs: 'sizeIoctl', story: askSize },
};

/** on another, of which half is a hole */
const STORIES_OF_HOLES: Stories = {
  'holes are found': { needs: 'seekData', story: findHoles },
  'holes are kept by qemu-img': { needs: 'seekData', story: mapHoles },
  'holes are copied by cp': copySparse,
  'holes are holes in the copy': { needs: 'seekData', story: keepHoles },
  'holes are punched, and zeros written': { needs: 'fallocate', story: punchAndZero },
};

const LACKS: Record<keyof Abilities, string> = {
  restart: 'this transport cannot replace a server',
  passthrough: 'this transport has no passthrough',
  fallocate: 'this transport has no fallocate',
  seekData: 'this transport has no SEEK_HOLE',
  sizeIoctl: 'this transport has no ioctl',
  singleTimes: 'this transport sets both times or none',
};

forEachTransport(t, ['dd', 'cmp', 'cp', 'fallocate', 'blockdev'], useFiles, OTHERS_ON_BOTH);

/** All on one bus. */
async function useFiles(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openBench(t, transport);
  await bench.begin();
  for (const driver of driversOf(transport)) {
    await t.test(driver.label, async (t) => {
      await tellOfImage(t, bench, driver, { patternBytes: SIZE, stories: STORIES });
      await tellOfImage(t, bench, driver, { patternBytes: 1 << 20, stories: STORIES_OF_HOLES });
      if (driver.options.length === 0) await t.test('mode r', (t) => refuseWriting(t, bench, driver.name));
    });
  }
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

/** What there is to tell apart: where nothing is passed through, ram is by threads in any case. */
function driversOf({ name: transport, abilities, runner }: TestTransport): readonly TestDriver[] {
  const ways = ALL_WAYS.filter(({ options }) => options.length === 0 || abilities.passthrough);
  if (runner === undefined) return ways;
  // sync is aio with a flag, and ram is served like aio; so one of the others is enough
  const isFirst = transport === 'kernel' && runner.name === 'user';
  return ways.filter(({ name }) => name === 'aio' || (name === 'ram' && isFirst));
}

/** @param patternBytes of the image are data, the rest is a hole */
async function tellOfImage(
  t: Test,
  bench: Bench,
  driver: TestDriver,
  { patternBytes, stories }: { patternBytes: number; stories: Stories },
): Promise<void> {
  const { abilities, runner } = bench.transport;
  const image = await bench.image('disk.img', SIZE, patternBytes);
  const attached = await bench.attach('--json', ...driver.options, `${driver.name}:${image}`);
  const { path, vdev, passthrough } = JSON.parse(attached) as VbdInfo;
  const subject: Subject = { bench, driver, image, vbd: path, passedThrough: passthrough };
  for (const [name, each] of Object.entries(stories)) {
    const { needs, story } = typeof each === 'function' ? { needs: null, story: each } : each;
    const skip = needs === null || abilities[needs] ? false : LACKS[needs];
    // root has told already what the transport lacks
    if (skip === false || runner === undefined) await t.test(name, { skip }, (t) => story(t, subject));
  }
  await bench.detach('--wait', '5', vdev);
}

async function readAtTheEnd(t: Test, { bench, vbd }: Subject): Promise<void> {
  const client = await Client.open(t, bench, 'read', vbd);
  t.equal(await client.call('read', 0, SIZE + 5000), String(SIZE), 'all of it');
  t.equal(await client.call('read', SIZE - 100, 4096), '100', 'across the end');
  t.equal(await client.call('read', SIZE, 4096), '0', 'at the end');
  t.equal(await client.call('read', SIZE + 1, 1), '0', 'behind it');
  t.equal(await client.call('read', 2 ** 40, 1), '0', 'far behind it');
  t.equal(await client.call('seek', 0, 2), String(SIZE), 'SEEK_END is the end');
}

async function writeAtTheEnd(t: Test, { bench, vbd, passedThrough }: Subject): Promise<void> {
  // a seal answers where the kernel writes by itself, and refuses whole pages
  const refusal = passedThrough ? 'Operation not permitted' : 'No space left on device';
  const client = await Client.open(t, bench, 'write', vbd);
  await client.call('write', SIZE - 10, 10, 'y');
  t.equal(await client.call('write', SIZE - 1, 1, 'z'), '1', 'the last byte');
  t.equal(await bench.sh('tail -c 10 "$1"', vbd), 'yyyyyyyyyz');
  t.equal(await client.call('write', SIZE - 10, 4096, 'z'), passedThrough ? refusal : '10', 'across the end');
  t.equal(await bench.sh('tail -c 10 "$1"', vbd), passedThrough ? 'yyyyyyyyyz' : 'zzzzzzzzzz', 'only what fits');
  t.equal(await client.call('write', SIZE, 1), refusal, 'at the end');
  t.equal(await client.call('write', SIZE + 4096, 1), refusal, 'behind it');
  const appending = await Client.open(t, bench, 'append', vbd);
  t.equal(await appending.call('write', 0, 1), refusal, 'appended');
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE));
}

async function keepSize(t: Test, { bench, vbd }: Subject): Promise<void> {
  const client = await Client.open(t, bench, 'write', vbd);
  await bench.sh('cat "$1" > before', vbd);
  for (const size of [1, SIZE - 1, SIZE + 1]) {
    t.equal(await client.call('truncate', size), 'Operation not permitted', `ftruncate to ${size}`);
  }
  t.equal(await client.call('truncate', 0), 'ok', 'ftruncate to 0 is ignored');
  t.equal(await client.call('truncate', SIZE), 'ok', 'ftruncate to the size that it has');
  const { status, stderr } = await bench.try('truncate -s 1M "$1"', vbd);
  t.not(status, 0, 'truncate to another size');
  t.match(stderr, /Operation not permitted/, 'and says why');
  t.match(await bench.succeed(['log']), /resize-refused vdev=xvda/, 'the log says it');
  await bench.sh('cmp "$1" before', vbd);
  await bench.sh('tr "\\0-\\377" "\\1-\\377\\0" < before > other', vbd);
  await ignoreTruncation(t, bench, vbd);
  await bench.sh('dd if=other of="$1" conv=notrunc bs=1M status=none; cmp "$1" other', vbd);
  await bench.sh('cat before 1<> "$1" >&1; cmp "$1" before', vbd);
  await bench.sh('truncate -s "$2" "$1"', vbd, String(SIZE));
}

/** O_TRUNC at open is ignored, as a block device ignores it: what people type for a device works, and nothing is emptied. */
async function ignoreTruncation(t: Test, bench: Bench, vbd: string): Promise<void> {
  const habits = [
    'cat other > "$1"',
    'cp other "$1"',
    'dd if=other of="$1" bs=64k status=none',
    'tee "$1" < other > tee',
  ];
  for (const habit of habits) {
    await bench.sh('cat before 1<> "$1" >&1; cmp "$1" before', vbd);
    await bench.sh(`${habit}; cmp "$1" other`, vbd);
    t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE), habit);
  }
  const reader = await Client.open(t, bench, 'direct', vbd);
  await bench.sh(': > "$1"; cmp "$1" other', vbd);
  t.equal(await reader.call('read', 0, 4096), '4096', 'a program that had it open still sees all of it');
  await bench.sh('head -c 5000 before > short; cp short "$1"; cmp -n 5000 "$1" before', vbd);
  await bench.sh('cmp -i 5000 "$1" other', vbd);
}

const stat = ({ bench, vbd }: Subject): Promise<string> => bench.sh('stat -c "%F %a %u:%g %X %Y" "$1"', vbd);

/** Whom he can give a file to who runs the programs, as he sees it: anybody, or only himself. */
function ownerFor(bench: Bench): string {
  if (bench.transport.runner === undefined) return '65534:12';
  return bench.transport.runner.name === 'namespace' ? '0:0' : '65534:65534';
}

async function setAttributes(t: Test, subject: Subject): Promise<void> {
  const { bench, vbd } = subject;
  const owner = ownerFor(bench);
  await bench.sh('chmod 640 "$1"; chown "$2" "$1"; touch -d @1000000000.5 "$1"', vbd, owner);
  t.equal(await stat(subject), `regular file 640 ${owner} 1000000000 1000000000`);
  await bench.sh(
    'touch -d @1234567890 "$1"; touch -d @1000000000 both; touch -a -r "$1" both; touch -r both "$1"',
    vbd,
  );
  await bench.sh('chmod u+s,o+r "$1"', vbd);
  if (bench.transport.runner !== undefined) {
    t.match(await bench.try('chown 12:12 "$1"', vbd), { status: 1, stderr: /not permitted|Invalid argument/ });
  }
  t.equal(await stat(subject), `regular file 4644 ${owner} 1234567890 1000000000`);
  await bench.sh('printf x | dd of="$1" conv=notrunc status=none', vbd);
  const age = Date.now() / 1000 - Number(await bench.sh('stat -c %Y "$1"', vbd));
  t.ok(Math.abs(age) < 60, 'a write sets the time of modification');
  if (bench.transport.runner === undefined) await bench.sh('chown 0:0 "$1"', vbd);
  await bench.sh('chmod 600 "$1"', vbd);
}

async function setOneTime(t: Test, subject: Subject): Promise<void> {
  const { bench, vbd } = subject;
  await bench.sh('touch -d @1234567890 "$1"; touch -m -d @1100000000 "$1"', vbd);
  t.match(await stat(subject), / 1234567890 1100000000$/);
  await bench.sh('touch -a -d @1200000000 "$1"', vbd);
  t.match(await stat(subject), / 1200000000 1100000000$/);
}

async function keepDirectory(t: Test, { bench, vbd }: Subject): Promise<void> {
  const directory = vbd.replace(/\/[^/]*$/, '');
  t.equal(await bench.sh('ls -A "$1"', directory), 'by-label\nby-partlabel\nby-partuuid\nby-slot\nby-uuid\nxvda');
  for (const script of [
    'rm -f "$1/xvda"',
    'mkdir "$1/new"',
    'echo > "$1/new"',
    'mv "$1/xvda" "$1/new"',
    'ln "$1/xvda" "$1/new"',
    'ln -s xvda "$1/new"',
    'mkfifo "$1/new"',
  ]) {
    const { status, stderr } = await bench.try(script, directory);
    t.not(status, 0, script);
    t.match(stderr, /Operation not permitted|cannot create/, 'and says why');
  }
  t.equal((await bench.try('cat "$1/new"', directory)).stderr.includes('No such file'), true);
  t.equal(
    await bench.sh('ls -A "$1"; df "$1" >/dev/null', directory),
    'by-label\nby-partlabel\nby-partuuid\nby-slot\nby-uuid\nxvda',
  );
}

async function readAndWriteDirect(t: Test, { bench, vbd }: Subject): Promise<void> {
  await bench.sh('cat "$1" > model', vbd);
  const client = await Client.open(t, bench, 'direct', vbd);
  for (const [offset, length] of [
    [1, 513],
    [4095, 4098],
    [70_001, 1_100_003],
    [SIZE - 777, 777],
  ] as const) {
    t.equal(await client.call('read', offset, length), String(length), `read ${length} bytes at ${offset}`);
    t.equal(await client.call('write', offset, length, 'd'), String(length), `write ${length} bytes at ${offset}`);
    const write =
      'printf "%*s" "$2" "" | tr " " d | dd of=model bs=1M seek="$1" oflag=seek_bytes conv=notrunc status=none';
    await bench.sh(write, String(offset), String(length));
  }
  await bench.sh('cmp "$1" model; dd if="$1" iflag=direct bs=1000 status=none | cmp - model', vbd);
}

async function mapFile(t: Test, { bench, vbd, passedThrough }: Subject): Promise<void> {
  if (cannotMap) return void t.comment(cannotMap);
  await bench.sh('printf abcd | dd of="$1" conv=notrunc status=none', vbd);
  const client = await Client.open(t, bench, 'write', vbd);
  if (passedThrough) t.equal(await client.call('mmap', 1), '61626364', 'a shared mapping is of the one cache');
  else t.equal(await client.call('mmap', 1), 'No such device', 'a shared mapping would be a second cache');
  t.equal(await client.call('mmap', 2), '61626364', 'a private one is a copy');
  await bench.sh('printf efgh | dd of="$1" conv=notrunc status=none', vbd);
  t.equal(await client.call('mmap', 2), '65666768', 'which sees what was written on this bus before');
  if (passedThrough) t.equal(await client.call('mmap', 1), '65666768');
}

async function writeDurable(t: Test, { bench, vbd, driver, image }: Subject): Promise<void> {
  const client = await Client.open(t, bench, 'dsync', vbd);
  t.equal(await client.call('write', 5000, 3000, 'D'), '3000');
  t.equal(await client.call('fsync'), 'ok');
  await bench.sh('dd if=/dev/zero of="$1" bs=64k count=3 oflag=dsync,direct conv=notrunc,fsync status=none', vbd);
  if (driver.writesImage) await bench.sh('sync -d "$1"; cmp "$1" "$2"', vbd, image);
}

async function askSize(t: Test, { bench, vbd }: Subject): Promise<void> {
  t.equal(await bench.sh('blockdev --getsize64 "$1"', vbd), String(SIZE));
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE));
}

/** The image of the tests of holes: data, a hole from 1 MiB to the end, and some data in it. */
async function findHoles(t: Test, { bench, vbd }: Subject): Promise<void> {
  await bench.sh('printf x | dd of="$1" bs=64k seek=24 conv=notrunc status=none', vbd);
  const client = await Client.open(t, bench, 'read', vbd);
  t.equal(await client.call('seek', 0, 4), String(1 << 20), 'the hole');
  t.equal(await client.call('seek', 5000, 3), '5000', 'data where there is data');
  t.equal(await client.call('seek', (1 << 20) + 5, 3), String(24 << 16), 'the data behind the hole');
  const end = await client.call('seek', (24 << 16) + (1 << 18), 4);
  t.equal(end, String((24 << 16) + (1 << 18)), 'a hole where there is a hole');
  t.equal(await client.call('seek', SIZE, 3), 'No such device or address', 'nothing behind the end');
}

async function mapHoles(t: Test, { bench, vbd, driver, image }: Subject): Promise<void> {
  if (!isInstalled('qemu-img')) return void t.pass('no', { skip: 'qemu-img is not installed' });
  const map = async (path: string): Promise<unknown> => {
    // while it is attached qemu-img is kept from the image by its own locks
    const options = `driver=raw,file.driver=file,file.locking=off,file.filename=${path}`;
    const runs = JSON.parse(await bench.sh('qemu-img map --output=json --image-opts "$1"', options));
    return (runs as { start: number; data: boolean }[]).map(({ start, data }) => ({ start, data }));
  };
  t.match(await map(vbd), [
    { start: 0, data: true },
    { start: 1 << 20, data: false },
    { start: 24 << 16, data: true },
  ]);
  if (driver.writesImage) t.same(await map(vbd), await map(image), 'as in the image');
}

async function copySparse(_t: Test, { bench, vbd }: Subject): Promise<void> {
  for (const when of ['always', 'auto', 'never']) {
    await bench.sh('cp --sparse="$2" "$1" copy; cmp "$1" copy', vbd, when);
  }
}

async function keepHoles(t: Test, { bench, vbd }: Subject): Promise<void> {
  const sectors = Number(await bench.sh('cp "$1" copy; stat -c %b copy', vbd));
  t.ok(sectors * 512 < SIZE, 'the copy has the holes of the vbd');
}

async function punchAndZero(t: Test, { bench, vbd, driver, image }: Subject): Promise<void> {
  await bench.sh('cat "$1" > model', vbd);
  const sectors = async (): Promise<number> => Number(await bench.sh('stat -c %b "$1"', vbd));
  const before = await sectors();
  const runs = ['-o 64k -l 512k', '-o 700001 -l 3', '-o 2097000 -l 1452'];
  for (const run of runs) await bench.sh(`fallocate -p ${run} "$1"; fallocate -p ${run} model; cmp "$1" model`, vbd);
  t.ok((await sectors()) <= before - 1000, 'a punched hole gives its space back');
  await bench.sh('fallocate -z -o 3001 -l 10007 "$1"; fallocate -z -o 3001 -l 10007 model; cmp "$1" model', vbd);

  t.comment('beyond the end: cut at the end, and the size stays');
  await bench.sh('fallocate -p -o 2000000 -l 1M "$1"; fallocate -p -o 2000000 -l 1M model', vbd);
  await bench.sh('fallocate -z -o 1999990 -l 1M "$1"; fallocate -z -n -o 1999990 -l 1M model; cmp "$1" model', vbd);
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE));
  for (const option of ['', '-n']) {
    const { status, stderr } = await bench.try(`fallocate ${option} -o 2M -l 1M "$1"`, vbd);
    t.not(status, 0);
    t.match(stderr, /No space left on device/, 'there is no space beyond the end');
  }
  await bench.sh('fallocate -o 1M -l 4096 "$1"; cmp "$1" model', vbd);
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE));
  if (driver.writesImage) await bench.sh('cmp "$1" model', image);
}

async function refuseWriting(t: Test, bench: Bench, driver: string): Promise<void> {
  const image = await bench.image(`${driver}.img`, SIZE, SIZE);
  await bench.sh('cp "$1" before', image);
  const vbd = await bench.attach(`${driver}:${image}`, 'xvda', 'r');
  for (const way of ['write', 'append', 'direct', 'truncate'] as const) {
    // the permissions of the file stop everybody but root
    t.match(await Client.tryOpen(t, bench, way, vbd), /^Read-only file system$|^Permission denied$/, way);
  }
  const client = await Client.open(t, bench, 'read', vbd);
  t.equal(await client.call('read', 0, SIZE), String(SIZE));
  for (const script of ['truncate -s 1M "$1"', 'fallocate -p -o 0 -l 4096 "$1"', 'dd if=/dev/zero of="$1" count=1']) {
    t.not((await bench.try(script, vbd)).status, 0, script);
  }
  await bench.sh('cmp "$1" before; cmp "$2" before', vbd, image);
  await client.release();
  await bench.detach('--wait', '5', 'xvda');
}
