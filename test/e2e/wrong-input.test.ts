/**
 * Wrong input: the exit status, one line that says what is wrong, the same as JSON, and nothing is changed by it: no bus
 * is left running, none that ran is disturbed, no image is touched.
 */
import { mkdir } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { RUN_FAILED } from '../../cli/options.js';
import { COMMANDS } from '../../cli/program.js';
import type { ErrorCode } from '../../drivers/errors.js';
import { EXIT_CODES } from '../../drivers/errors.js';
import { type Bench, onDefaultTransport, openBench, type TestTransport } from './fixtures.js';

t.setTimeout(360_000);

interface Mistake {
  /** words of the command line; `@` stands for the directory of images */
  readonly words: string[];
  readonly code: ErrorCode;
  /** what the line on stderr says */
  readonly line: RegExp;
  /** where it is not the one of the code */
  readonly status?: number;
}

const wrong = (code: ErrorCode, line: RegExp, ...words: string[]): Mistake => ({ words, code, line });

/** where no bus runs */
const WITHOUT_BUS: readonly Mistake[] = [
  wrong('NOT_FOUND', /nowhere\.img'?: no such image: .*create/, 'attach', '@/nowhere.img'),
  wrong('NOT_FOUND', /no such image/, 'attach', 'ram:@/dangling'),
  wrong('USAGE', /empty/, 'attach', '@/empty.img'),
  wrong('USAGE', /directory/, 'attach', 'sync:@/directory'),
  wrong(
    'NOT_FOUND',
    /no (such )?driver:? '?nosuch.*drivers are/,
    'attach',
    '--driver',
    'nosuch',
    '--image',
    '@/disk.img',
  ),
  wrong('USAGE', /control character/, 'attach', '@/two\nlines.img'),
  wrong('USAGE', /must be empty/, 'attach', '@/disk.img', '--bus', '@/'),
  wrong('USAGE', /must be empty/, 'start', '--bus', '@/full'),
  wrong('USAGE', /not a directory/, 'attach', '@/disk.img', '--bus', '@/other.img/'),
  wrong('NOT_FOUND', /no bus/, 'detach', '--bus', '@/directory', 'xvda'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'detach', '@/disk.img'),
  wrong('NOT_FOUND', /no bus/, 'stop', '--bus', 'nowhere'),
  wrong('USAGE', /unknown command 'atach'/, 'atach', '@/disk.img'),
  wrong('USAGE', /nothing to attach/, 'attach'),
  wrong('USAGE', /'more' is not an image/, 'attach', '@/disk.img', 'xvda', 'w', 'more'),
  wrong('NOT_FOUND', /nowhere\.img: no such image/, 'attach', '@/disk.img', 'ram:@/nowhere.img'),
  wrong('USAGE', /neither a vdev nor an image/, 'attach', '@/disk.img', 'nowhere.img'),
  wrong('USAGE', /--private: driver aio/, 'attach', '--private', '@/disk.img'),
  wrong('USAGE', /contradict/, 'attach', '@/disk.img', 'xvda', 'w', '--read-only'),
  wrong('USAGE', /mode/, 'attach', '@/disk.img', 'xvda', 'rw!'),
  wrong('USAGE', /transport/, 'attach', '@/disk.img', '--transport', 'pigeon'),
  wrong('USAGE', /offset: 'far' is not a size/, 'attach', '@/disk.img', '--offset', 'far'),
  wrong('USAGE', /512, 1024, 2048, 4096/, 'attach', '@/disk.img', '--sector-size', '4K'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'resize', 'xvda'),
  wrong('USAGE', /too many arguments/, 'resize', 'xvda', '2G'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'diff', 'xvda'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'map', 'xvda'),
  wrong('NOT_FOUND', /nowhere\.img: no such image/, 'map', '@/nowhere.img'),
  wrong('NOT_FOUND', /nowhere\.img: no such image/, 'map', 'qcow2:@/nowhere.img'),
  wrong('USAGE', /is not a qcow2 image|not.*qcow2/, 'map', 'qcow2:@/disk.img'),
  wrong('USAGE', /driver tar has no option 'size'/, 'map', 'tar:@/disk.img', '--option', 'size=1'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'commit', 'xvda'),
  wrong('USAGE', /missing required argument 'VBD'/, 'commit'),
  wrong('USAGE', /no driver at 'file'/, 'attach', '@/disk.img', '--option', 'file/member=a'),
  wrong('USAGE', /driver tar has no option 'size'/, 'attach', 'tar:@/disk.img', '--option', 'size=1'),
  wrong('USAGE', /same-directory, any, none/, 'attach', '@/disk.img', '--backing', 'some'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'reread', 'xvda'),
  wrong('USAGE', /missing required argument 'VBD'/, 'reread'),
  wrong('USAGE', /no such filter: 'nosuch'/, 'attach', '@/disk.img', '--filter', 'nosuch'),
  wrong('USAGE', /delay 'soon'/, 'attach', '@/disk.img', '--filter', 'delay=soon'),
  wrong('USAGE', /--option size has no value/, 'attach', '@/disk.img', '--option', 'size'),
  wrong('UNSUPPORTED', /qcow/, 'attach', '@/disk.img,qcow,xvda'),
  wrong('USAGE', /it is not a qcow2 image/, 'attach', '@/disk.img,qcow2,xvda'),
  wrong('USAGE', /driver qcow2 has no option 'size'/, 'attach', 'qcow2:@/disk.img', '--option', 'size=1'),
  wrong('USAGE', /seconds/, 'detach', 'xvda', '--wait', 'soon'),
  wrong('USAGE', /--transport/, 'start', '--transport', 'pigeon'),
  wrong('NOT_FOUND', /no bus/, 'ls', '--bus', 'nowhere'),
  wrong('NOT_FOUND', /no such image/, 'ls', 'nowhere'),
  wrong('USAGE', /contradict/, 'ls', '--buses', 'xvda'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'show', 'xvda'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'stats', 'xvda'),
  wrong('NOT_FOUND', /bus nosuch does not run/, 'top', '--once', '--bus', 'nosuch'),
  wrong('USAGE', /give seconds/, 'top', '--once', '--interval', '0'),
  wrong('USAGE', /give ADDRESS:PORT or PORT/, 'metrics', '--listen', 'x:y'),
  wrong('USAGE', /give ADDRESS:PORT or PORT/, 'web', '--listen', 'nowhere'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'export', 'xvda'),
  wrong('USAGE', /missing required argument 'SIZE'/, 'create', '@/new.img'),
  wrong('USAGE', /'big' is not a size/, 'create', '@/new.img', 'big'),
  wrong('BUSY', /disk\.img/, 'create', '@/disk.img', '1M'),
  wrong('NOT_FOUND', /nowhere/, 'create', '@/nowhere/new.img', '1M'),
  wrong(
    'NOT_FOUND',
    /nowhere\.img: no such image/,
    'create',
    '--format',
    'qcow2',
    '--backing',
    'nowhere.img',
    '@/new.img',
  ),
  wrong(
    'USAGE',
    /cluster_size: it cannot be 3072/,
    'create',
    '--format',
    'qcow2',
    '--option',
    'cluster_size=3K',
    '@/new.img',
    '1M',
  ),
  wrong('BUSY', /disk\.img/, 'create', '--format', 'qcow2', '@/disk.img', '1M'),
  wrong('USAGE', /directory/, 'create', '--force', '@/directory', '1M'),
  wrong('NOT_FOUND', /no such image/, 'info', '@/nowhere.img'),
  wrong('USAGE', /it is not a qcow2 image/, 'info', 'qcow2:@/disk.img'),
  { ...wrong('NOT_FOUND', /no such image/, 'check', '@/nowhere.img'), status: 1 },
  { ...wrong('USAGE', /it is not a qcow2 image/, 'check', 'qcow2:@/disk.img'), status: 1 },
  { ...wrong('UNSUPPORTED', /the format raw has no check/, 'check', '@/disk.img'), status: 63 },
  wrong('USAGE', /too many arguments/, 'memory', 'ram'),
  wrong('USAGE', /missing required argument 'FILE\|SPEC'/, 'save', 'xvda'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'reset', 'xvda'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'swap', 'xvda', '@/disk.img'),
  wrong('USAGE', /nothing to attach/, 'swap', 'xvda'),
  wrong('USAGE', /names xvdb/, 'swap', 'xvda', 'tap:aio:@/disk.img,xvdb,w'),
  wrong('USAGE', /missing required argument/, 'slot'),
  wrong('USAGE', /'xvd' is not a vdev/, 'slot', 'xvd'),
  wrong('NOT_FOUND', /no bus/, 'config', 'nowhere'),
  wrong('USAGE', /missing required argument 'DIR'/, 'mount', '@/disk.img'),
  wrong('NOT_FOUND', /cannot mount on .*nowhere/, 'mount', '@/disk.img', '@/nowhere'),
  wrong('USAGE', /it is not a directory/, 'mount', '@/disk.img', '@/other.img'),
  wrong('NOT_FOUND', /no such image/, 'mount', '@/nowhere.img', '@/directory'),
  wrong('NOT_FOUND', /no partition 'first'/, 'mount', '@/disk.img', '@/directory', '--partition', 'first'),
  wrong('USAGE', /number of a partition/, 'mount', '@/disk.img', '@/directory', '--partition', '0'),
  wrong('USAGE', /has no partitions/, 'mount', '@/disk.img', '@/directory', '--partitions'),
  wrong('USAGE', /contradict/, 'mount', '@/disk.img', '@/directory', '--partitions', '--partition', '1'),
  wrong('USAGE', /contradict/, 'mount', '@/disk.img', '@/directory', '--offset', '1M', '-o', 'offset=2M'),
  wrong('USAGE', /contradict/, 'mount', '@/disk.img', '@/directory', '--offset', '1M', '--partition', '1'),
  wrong('USAGE', /not a size/, 'mount', '@/disk.img', '@/directory', '--offset', 'far'),
  wrong('USAGE', /-o partition is given twice/, 'mount', '@/disk.img', '@/directory', '-o', 'partition=1,partition=2'),
  wrong('USAGE', /there is no SPEC, only DIR/, 'mount', '--image', '@/disk.img', '@/a.img', '@/directory'),
  wrong('USAGE', /missing required argument 'SPEC'/, 'mount'),
  wrong('NOT_FOUND', /no partition 3/, 'mount', '@/disk.img', '@/directory', '--partition', '3'),
  wrong('NOT_FOUND', /nothing is mounted/, 'umount', '@/directory'),
  wrong('NOT_FOUND', /nothing is mounted/, 'umount', '@/nowhere'),
  wrong('NOT_FOUND', /no vbd is mounted from it/, 'umount', '/dev/loop4095'),
  wrong('USAGE', /three octal digits/, 'attach', '@/disk.img', '--file-mode', 'rw'),
  wrong('USAGE', /give a number/, 'attach', '@/disk.img', '--uid', 'nobody'),
  wrong('NOT_FOUND', /nowhere\.cfg/, 'attach', '--config', '@/nowhere.cfg'),
  wrong('NOT_FOUND', /no bus|no such vbd/, 'pause', 'xvda'),
  wrong('USAGE', /missing required argument/, 'resume'),
  wrong('NOT_FOUND', /no bus/, 'upgrade'),
  wrong('NOT_FOUND', /nowhere/, 'log', '--bus', 'nowhere'),
  wrong('USAGE', /too many arguments/, 'doctor', 'who'),
  wrong('USAGE', /ksh/, 'completion', 'ksh'),
  wrong('USAGE', /missing required argument/, 'block-attach', 'nowhere'),
  wrong('NOT_FOUND', /no bus/, 'block-list', 'nowhere'),
  wrong('NOT_FOUND', /no bus/, 'block-detach', 'nowhere', 'xvda'),
  wrong('USAGE', /contradict/, 'block-list', 'one', '--bus', 'other'),
  { ...wrong('NOT_FOUND', /no such image/, 'run', '@/nowhere.img', '--', 'true'), status: RUN_FAILED },
  { ...wrong('USAGE', /no command|nothing to run|COMMAND/i, 'run', '@/disk.img'), status: RUN_FAILED },
];

/** on bus 0, which has disk.img as xvda (w), other.img as xvdb (r) and ram.img as xvdc (ram) */
const ON_A_BUS: readonly Mistake[] = [
  wrong('UNSUPPORTED', /xvda is not a snapshot: there is no base/, 'diff', 'xvda'),
  wrong('UNSUPPORTED', /xvda has no base that it could be committed to: its driver is aio/, 'commit', 'xvda'),
  wrong('USAGE', /xvdb on bus 0 has mode r: only a vbd of mode w is committed/, 'commit', '@/other.img'),
  wrong('UNSUPPORTED', /xvdc has no base that it could be committed to: its driver is ram/, 'commit', 'xvdc'),
  wrong('BUSY', /disk\.img.* bus 0 .*xvda/, 'create', '--force', '@/disk.img', '1M'),
  { ...wrong('BUSY', /disk\.img.* bus 0 .*xvda/, 'check', '@/disk.img'), status: 1 },
  wrong('BUSY', /slot 51712 \(xvda\) of bus 0 is taken/, 'attach', '@/third.img', 'xvda'),
  wrong('BUSY', /slot 51728 \(xvdb\)/, 'attach', '@/third.img', '51728'),
  wrong('BUSY', /slot 51744 \(xvdc\)/, 'attach', '@/third.img,xvdc,r'),
  wrong('BUSY', /disk\.img.* bus 0 .*xvda/, 'attach', '@/disk.img'),
  wrong('BUSY', /disk\.img.* bus 0 .*xvda/, 'attach', '@/disk.img', 'xvdz', 'r'),
  wrong('BUSY', /disk\.img.* bus 0 .*xvda/, 'attach', 'ram:@/disk.img'),
  wrong('BUSY', /disk\.img.* bus 0 .*xvda/, 'attach', '@/disk.img', '--bus', 'another'),
  wrong('BUSY', /link.* bus 0 .*xvda/, 'attach', '@/link'),
  wrong('BUSY', /hard.* bus 0 .*xvda/, 'attach', 'sync:@/hard'),
  wrong('BUSY', /other\.img.* bus 0 .*xvdb/, 'attach', '@/other.img'),
  wrong('USAGE', /bus itself/, 'attach', '@/../runtime/bus/0/xvdc', 'xvde'),
  wrong('USAGE', /bus itself/, 'attach', '@/to-the-bus', 'xvde', 'r'),
  wrong('NOT_FOUND', /no such image/, 'attach', '@/nowhere.img'),
  wrong('NOT_FOUND', /no such image/, 'attach', '@/disk.img/inside'),
  wrong('USAGE', /circle/, 'attach', '@/circle'),
  wrong('USAGE', /empty/, 'attach', 'ram:@/empty.img'),
  wrong('USAGE', /directory/, 'attach', '@/directory'),
  wrong('USAGE', /pipe|FIFO/i, 'attach', '@/fifo'),
  wrong('USAGE', /character device/, 'attach', '@/zero'),
  wrong('USAGE', /character device/, 'attach', '/dev/zero'),
  wrong('USAGE', /control character/, 'attach', '--image', '@/two\nlines.img'),
  wrong('USAGE', /name is too long/, 'attach', `@/${'x'.repeat(300)}`),
  wrong('USAGE', /vdev/, 'attach', '@/third.img', '../xvda'),
  wrong('USAGE', /vdev/, 'attach', '@/third.img', 'xvda/b'),
  wrong('USAGE', /vdev/, 'attach', '@/third.img', '..'),
  wrong('USAGE', /vdev|control character/, 'attach', '@/third.img', 'xvd\nd'),
  wrong('USAGE', /vdev|slot/, 'attach', '@/third.img', '999999999999'),
  wrong('NOT_FOUND', /no such vbd: 'xvdd' on bus 0/, 'detach', 'xvdd'),
  wrong('NOT_FOUND', /no such vbd/, 'detach', '51760'),
  wrong('NOT_FOUND', /no such vbd/, 'detach', '../0/xvda'),
  wrong('NOT_FOUND', /no such vbd/, 'detach', '@/third.img'),
  wrong('USAGE', /offset 1048576: the disk has only 1048576 bytes/, 'attach', '@/third.img', '--offset', '1M'),
  wrong('USAGE', /would refuse the attach itself/, 'attach', '@/third.img', '--filter', 'error=read'),
  wrong('NOT_FOUND', /no such vbd/, 'show', 'xvdd'),
  wrong('NOT_FOUND', /no such vbd/, 'stats', 'xvdd'),
  wrong('NOT_FOUND', /no such vbd/, 'pause', 'xvdd'),
  wrong('NOT_FOUND', /no such vbd/, 'resume', '51760'),
  wrong('NOT_FOUND', /no such vbd/, 'save', 'xvdd', '@/new.img'),
  wrong('BUSY', /third\.img/, 'save', 'xvda', '@/third.img'),
  wrong('NOT_FOUND', /nowhere/, 'save', 'xvda', '@/nowhere/new.img'),
  wrong('BUSY', /has data already/, 'save', 'xvda', 'aio:@/third.img'),
  wrong('NOT_FOUND', /no such image/, 'save', 'xvda', 'aio:@/nowhere.img'),
  wrong('USAGE', /in memory only/, 'save', 'xvda', 'ram:@/third.img'),
  wrong('UNSUPPORTED', /ram/, 'reset', 'xvda'),
  wrong('NOT_FOUND', /no such vbd/, 'swap', 'xvdd', '@/third.img'),
  wrong('NOT_FOUND', /no such image/, 'swap', 'xvda', '@/nowhere.img'),
  wrong('USAGE', /empty/, 'swap', 'xvda', '@/empty.img'),
  wrong('BUSY', /other\.img.* bus 0 .*xvdb/, 'swap', 'xvda', '@/other.img'),
  wrong('NOT_FOUND', /no bus another/, 'detach', '--bus', 'another', 'xvda'),
];

t.test('every command has a row', async (t) => {
  const tried = new Set([...WITHOUT_BUS, ...ON_A_BUS].map(({ words: [command] }) => command));
  t.same(
    Object.keys(COMMANDS).filter((command) => !tried.has(command)),
    [],
  );
});

type Story = (t: Test, transport: TestTransport) => Promise<void>;

const STORIES: Record<string, Story> = {
  'where no bus runs': tryWithoutBus,
  'on a bus': tryOnBus,
  'an image in use by a loop device': attachLoopedImage,
  'an image that may not be written': attachUnwritableImage,
  'the largest image, and one that is larger': attachLargestImage,
  'a user who may not mount': attachAsNobody,
};

onDefaultTransport(t, ['mkfifo', 'mknod'], async (t, transport) => {
  for (const [name, story] of Object.entries(STORIES)) await t.test(name, (t) => story(t, transport));
});

async function tryWithoutBus(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openImages(t, transport);
  await makeMistakes(t, bench, WITHOUT_BUS, () => bench.traces());
}

async function tryOnBus(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openImages(t, transport);
  await bench.attach('images/disk.img');
  await bench.attach('images/other.img', 'xvdb', 'r');
  await bench.attach('ram:images/ram.img', 'xvdc');
  const vbds = await bench.list();
  const state = async (): Promise<unknown> => [await bench.sh('cat runtime/state/0/bus.json'), await bench.mounts()];
  await makeMistakes(t, bench, ON_A_BUS, state);
  t.same(await bench.list(), vbds);
}

async function attachLoopedImage(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openImages(t, transport);
  const device = await bench.loop(bench.path('images/disk.img'));
  const busy = wrong('BUSY', new RegExp(`disk\\.img.* ${device}.*losetup -d`), 'attach', '@/disk.img');
  const mistakes = [busy, { ...busy, words: ['attach', 'ram:@/disk.img'] }];
  await makeMistakes(t, bench, mistakes, () => bench.traces());
}

async function attachUnwritableImage(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openImages(t, transport);
  await bench.sh('mkdir ro; mount --bind images ro; mount -o remount,bind,ro ro');
  const readOnly = ['attach', bench.path('ro/disk.img')];
  const mistakes = [wrong('DENIED', /disk\.img.*read-only: attach it with mode r/, ...readOnly)];
  const immutable = (await bench.try('chattr +i images/third.img')).status === 0;
  if (immutable) mistakes.push(wrong('DENIED', /third\.img.*immutable/, 'attach', '@/third.img'));
  else t.comment('chattr +i does not work on this file system');
  await makeMistakes(t, bench, mistakes, () => bench.traces());
  await bench.attach('ro/disk.img', 'xvda', 'r');
  await bench.attach('images/third.img', '-r');
  await bench.attach('ram:ro/other.img');
  t.equal((await bench.list()).length, 3, 'with mode r they are attached, and by ram, which only reads');
}

async function attachLargestImage(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openBench(t, transport);
  await bench.sh('mkdir images huge; mount -t tmpfs none huge');
  const made = await bench.try('truncate -s 9007199254740991 huge/largest; truncate -s 9007199254740992 huge/larger');
  if (made.status !== 0) return void t.pass('no file system here takes such an image', { skip: made.stderr });
  const larger = wrong('UNSUPPORTED', /larger.*9007199254740992/, 'attach', bench.path('huge/larger'));
  await makeMistakes(t, bench, [larger], () => bench.traces());
  const vbd = await bench.attach('huge/largest');
  await bench.sh('printf end | dd of="$1" bs=3 seek=9007199254740988 oflag=seek_bytes conv=notrunc status=none', vbd);
  t.equal(await bench.sh('tail -c 3 huge/largest'), 'end', 'served to its last byte');
  t.equal(await bench.sh('tail -c 4 "$1" | tail -c 3', vbd), 'end');
}

async function attachAsNobody(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openImages(t, transport);
  await bench.sh('chmod 755 . images; chmod 666 images/disk.img; install -d -o 65534 -m 700 nobody');
  const env = { FUSETAP_RUNTIME_DIR: bench.path('nobody/runtime'), HOME: '/' };
  const before = await fingerprint(bench);
  // in a namespace where the helper for mounting refuses
  const asNobody =
    'mount --bind /bin/false "$(command -v fusermount3)"; exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"';
  const apart = ['--mount', '--propagation', 'slave', 'sh', '-euc', asNobody, 'sh'];
  const words = [...apart, process.execPath, bench.program, 'attach', 'images/disk.img'];
  const { status, stdout, stderr } = await bench.execute('unshare', words, { env });
  t.equal(status, EXIT_CODES.DENIED, stderr);
  t.equal(stdout, '');
  t.match(stderr, /^fusetap: [^\n]*(mount|fuse)[^\n]*\n$/);
  t.equal(await fingerprint(bench), before);
  t.same(await bench.mounts(), []);
  t.equal(await bench.sh('ls -A nobody/runtime/bus nobody/runtime/state | grep -v : || true'), '');
}

async function openImages(t: Test, transport: TestTransport): Promise<Bench> {
  const bench = await openBench(t, transport);
  await mkdir(bench.path('images'));
  for (const name of ['disk.img', 'other.img', 'third.img', 'ram.img']) {
    await bench.image(`images/${name}`, 1 << 20, 100_000);
  }
  await bench.sh(`
    cd images
    : > empty.img; mkdir directory full; : > full/file
    mkfifo fifo; mknod zero c 1 5; echo > 'two
lines.img'
    ln -s nowhere dangling; ln -s circle circle; ln -s disk.img link; ln disk.img hard
    ln -s ../runtime/bus/0/xvdc to-the-bus
  `);
  return bench;
}

/** Makes one after the other, and looks after each whether anything has changed since before the first. */
async function makeMistakes(
  t: Test,
  bench: Bench,
  mistakes: readonly Mistake[],
  state: () => Promise<unknown>,
): Promise<void> {
  const look = (): Promise<unknown[]> => Promise.all([fingerprint(bench), state()]);
  const before = await look();
  for (const mistake of mistakes) {
    await t.test(mistake.words.join(' ').slice(0, 80), async (t) => {
      await makeMistake(t, bench, mistake);
      t.same(await look(), before, 'the images and the buses are as before');
    });
  }
}

async function makeMistake(t: Test, bench: Bench, mistake: Mistake): Promise<void> {
  const words = mistake.words.map((word) => word.replace('@', bench.path('images')));
  const { status, stdout, stderr } = await bench.fusetap(['--json', ...words]);
  t.equal(status, mistake.status ?? EXIT_CODES[mistake.code], stderr);
  t.match(stderr, /^fusetap: [^\n]+\n$/, 'one line');
  t.match(stderr, mistake.line);
  const { error } = JSON.parse(stdout) as { error: Record<string, unknown> };
  t.equal(error.code, mistake.code);
  t.same(Object.keys(error), ['code', 'message', 'hint', 'holders']);
  t.ok(Array.isArray(error.holders));
  const mustNameHolders = mistake.code === 'BUSY' && words[0] === 'attach';
  if (mustNameHolders) t.ok((error.holders as unknown[]).length > 0, 'holders are named');
}

/** Names, kinds, sizes, times and bytes of all images. */
function fingerprint(bench: Bench): Promise<string> {
  return bench.sh(
    "find images -printf '%p %y %m %s %T@ %C@ %n\\n' | sort; find images -type f -exec cksum {} + | sort",
  );
}
