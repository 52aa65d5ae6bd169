/** Drivers of others, from the command line: a file, a package, and what a bad one does to the bus. */
import { mkdir, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { readExample } from '../docs/example.js';
import { type Bench, JUST_NAMESPACE, JUST_USER, onDefaultTransport, openBench } from './fixtures.js';
import { killServer, killServerDuring, verifyJob } from './kill-server.js';

t.setTimeout(360_000);

t.test('the driver of docs/drivers.md, under load and checksums, its server killed', (t) => {
  onDefaultTransport(
    t,
    ['fio', 'cmp'],
    async (t, transport) => useExample(t, await openBench(t, transport)),
    JUST_USER,
  );
  t.end();
});

t.test('a package as a driver', (t) => {
  onDefaultTransport(t, [], async (t, transport) => usePackage(t, await openBench(t, transport)), JUST_NAMESPACE);
  t.end();
});

t.test('a driver that breaks the contract', (t) => {
  onDefaultTransport(t, [], async (t, transport) => refuseBroken(t, await openBench(t, transport)));
  t.end();
});

t.test('what a driver says when it fails reaches its author', (t) => {
  onDefaultTransport(t, [], async (t, transport) => tellErrors(t, await openBench(t, transport)), JUST_USER);
  t.end();
});

t.test('a driver that takes the server down does not take the others with it', (t) => {
  onDefaultTransport(t, ['cmp'], async (t, transport) => survive(t, await openBench(t, transport)), JUST_NAMESPACE);
  t.end();
});

async function useExample(t: Test, bench: Bench): Promise<void> {
  const isRoot = bench.transport.runner === undefined;
  const sizeBytes = 24 << 20;
  await writeFile(bench.path('concat.mjs'), readExample('drivers.md', 'concat.js'));
  const [a, b] = [await bench.image('a.img', 10 << 20), await bench.image('b.img', 14 << 20)];
  const vbd = await bench.attach('--driver', './concat.mjs', '--option', `parts=${a}:${b}`, '--filter', 'delay=3');
  t.match(await bench.list(), [{ driver: bench.path('concat.mjs'), image: null, size: sizeBytes }]);

  const job = bench.execute('fio', verifyJob(vbd, sizeBytes), { timeoutMs: 60_000 });
  const { status, stdout, stderr, killed } = await killServerDuring(bench, isRoot ? 5 : 2, job);
  t.equal(status, 0, `${stderr}${stdout}`);
  t.ok(killed >= (isRoot ? 2 : 1), `${killed} servers were killed`);

  await bench.sh('cat "$1" > after.img', vbd);
  await bench.detach(vbd);
  await bench.sh('cat "$1" "$2" | cmp - after.img', a, b);
  t.same(await bench.traces(), []);
}

/** Upside down: the image's bytes, each inverted. */
const NOT = `export default {
  name: 'not',
  image: 'required',
  async open({ image, readOnly, options }) {
    const { readSync, writeSync } = await import('node:fs');
    const turn = (bytes) => bytes.map((byte) => byte ^ 255);
    if (options.fail) throw Object.assign(new Error('as you wish'), { code: options.fail, hint: 'leave fail away' });
    const disk = {
      size: image.sizeBytes,
      read(buffer, offset) { readSync(image.fd, buffer, 0, buffer.length, offset); buffer.set(turn(buffer)); },
      close() {},
    };
    return readOnly ? disk : { ...disk, write(buffer, offset) { writeSync(image.fd, turn(buffer), 0, buffer.length, offset); } };
  },
};`;

async function usePackage(t: Test, bench: Bench): Promise<void> {
  const home = bench.path('node_modules/fusetap-not');
  await mkdir(`${home}/lib`, { recursive: true });
  await writeFile(`${home}/package.json`, '{"type":"module","exports":{".":{"import":"./lib/not.js"}}}');
  await writeFile(`${home}/lib/not.js`, NOT);
  const image = await bench.image('disk.img', 1000);
  const words = ['--driver', 'fusetap-not', '--image', image];

  const vbd = await bench.attach(...words);
  t.equal(await bench.sh('head -c 3 "$1" | od -An -tx1', vbd), ' ff ff ff');
  await bench.sh('printf abc | dd of="$1" conv=notrunc bs=3 seek=1 status=none', vbd);
  t.equal(await bench.sh('dd if="$1" bs=3 skip=1 count=1 status=none', vbd), 'abc');
  t.equal(await bench.sh('od -An -tx1 -j3 -N3 "$1"', image), ' 9e 9d 9c');
  t.equal(
    (await bench.fusetap(['attach', image, 'xvdb'])).status,
    4,
    'the image of a third-party driver is claimed too',
  );
  await bench.detach(vbd);

  t.same(await bench.traces(), []);
  // what a driver says is told to everybody alike
  if (bench.transport.runner !== undefined) return;

  for (const [code, exit] of Object.entries({ USAGE: 2, NOT_FOUND: 3, UNSUPPORTED: 6, NO_SPACE: 7 })) {
    const { status, stderr } = await bench.fusetap(['attach', ...words, '--option', `fail=${code}`]);
    t.equal(status, exit);
    t.match(stderr, /^fusetap: driver not: as you wish: leave fail away\n$/);
  }
  t.equal((await bench.fusetap(['attach', '--driver', 'fusetap-not'])).status, 2, 'it needs an image');
  t.equal((await bench.fusetap(['attach', ...words, '--option', 'a=1', '--option', 'a=2'])).status, 2);
  t.equal((await bench.fusetap(['attach', ...words, '--option', 'alone'])).status, 2);
  t.same(await bench.traces(), []);
}

async function refuseBroken(t: Test, bench: Bench): Promise<void> {
  const disk = (body: string): string =>
    `export default { name: 'bad', image: 'none', async open() { return ${body}; } }`;
  const cases: [text: string, status: number, message: RegExp][] = [
    ['export default { name: "bad", image: "none" }', 6, /breaks the contract: it has no open/],
    ['export const x = 1', 6, /its default export is missing/],
    ['export default {', 1, /cannot be loaded: SyntaxError/],
    [disk('{ size: 5, close() {} }'), 6, /the disk that driver bad opened breaks the contract: it has no read/],
    [disk('{ read() {}, close() {} }'), 6, /its size is missing/],
    [disk('{ size: 5n, read() {}, close() {} }'), 6, /its size is a bigint/],
  ];
  for (const [text, exit, message] of cases) {
    await writeFile(bench.path('bad.mjs'), text);
    const { status, stderr } = await bench.fusetap(['attach', '--driver', './bad.mjs']);
    t.equal(status, exit, stderr);
    t.match(stderr, message);
    t.match(stderr, /^fusetap: [^\n]+: [^\n]+\n$/, 'one line');
  }
  const { status, stderr } = await bench.fusetap(['attach', '--driver', './missing.mjs']);
  t.equal(status, 3);
  t.match(stderr, /no such driver: '.*\/missing\.mjs'/);
  t.equal((await bench.fusetap(['attach', '--driver', 'no-such-package-here'])).status, 3);
  t.same(await bench.traces(), []);
}

async function survive(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const good = await bench.attach(image);
  await writeFile(bench.path('exits.mjs'), 'process.exit(3)');
  const { status, stderr } = await bench.fusetap(['attach', '--driver', './exits.mjs']);
  t.equal(status, 1);
  t.match(stderr, /the server died/);
  await bench.sh('cmp "$1" "$2"', good, image);
  t.match(await bench.list(), [{ vdev: 'xvda', state: 'running', restarts: 1 }]);

  // a disk that cannot be opened again is EIO, and only that one
  await writeFile(bench.path('once.mjs'), readExample('drivers.md', 'concat.js'));
  const part = await bench.image('part.img', 4096);
  const lost = await bench.attach('--driver', './once.mjs', '--option', `parts=${part}`);
  await bench.sh('mv "$1" "$1.gone"', part);
  await killServer(bench);
  await bench.sh('cmp "$1" "$2"', good, image);
  t.match((await bench.try('cat "$1"', lost)).stderr, /Input\/output error/);
  t.equal(await bench.sh('stat -c %s "$1"', lost), '4096', 'its size stays');
  await bench.fusetap(['detach', lost]);
  await bench.detach(good);
  t.same(await bench.traces(), []);
}

/** Its disk fails in the way that the options say, from the second read of a server on. */
const FAILING = `export default { name: 'failing', image: 'required', open: async ({ image, options }) => {
  let reads = 0;
  return {
    size: image.sizeBytes,
    async read(buffer) {
      reads += 1;
      buffer.fill(65);
      if (options.how === 'throw') throw new Error('boo');
      if (reads > 1 && options.how === 'late') throw Object.assign(new Error('no more'), { errno: 28 });
      if (reads > 1 && options.how === 'reject') Promise.reject(new Error('nobody caught this'));
      if (reads > 1 && options.how === 'exit') process.exit(3);
    },
    async close() {},
  };
} };`;

async function tellErrors(t: Test, bench: Bench): Promise<void> {
  await writeFile(bench.path('failing.mjs'), FAILING);
  const driver = bench.path('failing.mjs');
  const image = await bench.image('disk.img', 1 << 20);
  const words = (how: string): string[] => ['--driver', driver, '--image', image, '--option', `how=${how}`];
  t.match(await bench.fusetap(['attach', ...words('throw')]), {
    status: 1,
    stderr: /^fusetap: the attached file cannot be read: [^\n]*xvda: EIO: boo\n$/,
  });
  t.same(
    (await bench.traces()).filter((trace) => !trace.startsWith('file: ram')),
    [],
  );

  await bench.begin();
  const log = async (): Promise<Record<string, unknown>[]> =>
    (await bench.succeed(['log', '--json'])).split('\n').map((line) => JSON.parse(line));
  const vbd = await bench.attach(...words('late'));
  t.match(await bench.list(), [{ mode: 'r' }], 'a driver without write');
  t.equal(await bench.sh('stat -c %A "$1"', vbd), '-r--------');
  t.match((await bench.try('printf x >> "$1"', vbd)).stderr, /Read-only file system|Permission denied/);
  for (let i = 0; i < 5; i++) t.match((await bench.try('cat "$1"', vbd)).stderr, /No space left/);
  t.match(
    (await log()).filter(({ event }) => event === 'driver-error'),
    [{ vdev: 'xvda', driver, operation: 'read', message: 'no more' }],
    'once in a while',
  );
  await bench.detach(vbd);

  for (const [how, told] of [
    ['reject', 'unhandled rejection: nobody caught this'],
    ['exit', 'it was ended: process.exit(3)'],
  ] as const) {
    const path = await bench.attach(...words(how));
    // the next server answers the request that this one died of
    await bench.sh('head -c 4096 "$1" >/dev/null', path);
    await bench.detach(path);
    const died = (await log()).filter(({ event }) => event === 'server-died').at(-1);
    t.match(died, { how: told, driver, vdev: 'xvda' });
  }
}
