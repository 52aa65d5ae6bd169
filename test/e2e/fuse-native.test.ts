/**
 * What is particular to the transport fuse-native: how it is chosen, what it refuses, what happens where its package or
 * library is not there, and when its processes die. That it serves files as the kernel transport does, the other
 * end-to-end tests show.
 */
import { cp, mkdir, readdir, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { Client } from './client.js';
import { eventually, type Outcome } from './command.js';
import { type Bench, forEachTransport, openBench } from './fixtures.js';

const SIZE = 1 << 20;
/** of the compiled program, and of what it depends on */
const BUILD = fileURLToPath(new URL('../../', import.meta.url));
const PACKAGE = fileURLToPath(new URL('../../../', import.meta.url));

t.setTimeout(180_000);

forEachTransport(t, ['cmp', 'losetup'], async (t, transport) => {
  if (transport.name !== 'fuse-native') return void t.pass('is not meant', { skip: 'only for fuse-native' });
  const tell = async (name: string, body: (t: Test, bench: Bench) => Promise<void>): Promise<void> => {
    await t.test(name, async (t) => body(t, await openBench(t, transport)));
  };
  await tell('a bus has one transport', keepTransport);
  await tell('what it cannot do is refused', refuse);
  await tell('libfuse cannot be loaded', missLibrary);
  await tell('the package is not installed', missPackage);
  await tell('pause and resume', pauseAndResume);
  await tell('the server dies', loseServer);
  await tell('the keeper dies', loseKeeper);
  await tell('somebody takes the mount away', loseMount);
});

async function keepTransport(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  const vbd = await bench.attach(image);
  t.match(await bench.list(), [{ transport: 'fuse-native', passthrough: false, state: 'running' }]);
  t.match(JSON.parse(await bench.succeed(['show', '--json'])), { transport: 'fuse-native' });
  await bench.image('second.img', SIZE);
  await bench.image('third.img', SIZE);
  await bench.succeed(['attach', 'third.img', '--bus', 'other']);
  t.equal((await bench.list()).filter(({ transport }) => transport === 'kernel').length, 1, 'each bus its own');
  const line = /^fusetap: bus 0 runs on transport fuse-native, not kernel: [^\n]*--bus[^\n]*\n$/;
  t.match(await bench.fusetap(['attach', '--transport', 'kernel', 'second.img']), { status: 4, stderr: line });
  t.match(await bench.fusetap(['start', '--transport', 'kernel']), { status: 4, stderr: line });
  t.equal((await bench.fusetap(['attach', '--transport', 'fax', 'second.img'])).status, 2);
  await bench.succeed(['attach', 'second.img']);
  t.equal((await bench.list()).filter(({ transport }) => transport === 'fuse-native').length, 2, 'where none is named');
  await bench.sh('cmp "$1" "$2"', vbd, image);
  await bench.succeed(['stop', '--all']);
  t.same(await bench.traces(), []);
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE);
  const attach = ['attach', ...bench.transport.options];
  const { status, stderr } = await bench.fusetap([...attach, '--passthrough', 'on', `ram:${image}`]);
  t.equal(status, 6);
  t.match(stderr, /passed through: transport fuse-native/);
  t.same(await bench.traces(), []);
  await bench.attach(image);
  t.match(await bench.fusetap(['upgrade']), { status: 6, stderr: /fuse-native/ });
  await bench.detach('xvda');
}

function isOneLine(t: Test, { status, stdout, stderr }: Outcome): void {
  t.equal(status, 6);
  t.equal(stdout, '');
  t.match(stderr, /^fusetap: [^\n]*fuse-native[^\n]*apt install libfuse2[^\n]*\n$/);
}

async function missLibrary(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE);
  await mkdir(bench.path('lib'));
  await writeFile(bench.path('lib/libfuse.so.2'), 'not a library');
  const env = { LD_LIBRARY_PATH: bench.path('lib') };
  for (const words of [['attach', image], ['start']]) {
    isOneLine(t, await bench.fusetap([...words, ...bench.transport.options], { env }));
    t.same(await bench.traces(), [], 'nothing is left');
  }
  await bench.succeed(['attach', image], { env });
  await bench.detach('xvda');
}

/** The program with all that it depends on, but for the package. */
async function missPackage(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE);
  await mkdir(bench.path('copy/node_modules'), { recursive: true });
  for (const part of ['chunks', 'cli', 'mount']) {
    await cp(join(BUILD, part), bench.path(`copy/dist/${part}`), { recursive: true });
  }
  await cp(join(PACKAGE, 'package.json'), bench.path('copy/package.json'));
  for (const name of await readdir(join(PACKAGE, 'node_modules'))) {
    if (name !== 'fuse-native')
      await symlink(join(PACKAGE, 'node_modules', name), bench.path(`copy/node_modules/${name}`));
  }
  const run = (...words: string[]): Promise<Outcome> =>
    bench.execute(process.execPath, [bench.path('copy/dist/cli/main.js'), ...words]);
  const missing = await run('attach', ...bench.transport.options, image);
  isOneLine(t, missing);
  t.match(missing.stderr, /npm install fuse-native/);
  t.same(await bench.traces(), [], 'nothing is left');
  t.equal((await run('attach', image)).status, 0, 'the kernel transport does without it');
  await bench.detach('xvda');
}

async function pauseAndResume(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(`ram:${await bench.image('disk.img', SIZE, SIZE)}`);
  const client = await Client.open(t, bench, 'write', vbd);
  await bench.succeed(['pause', 'xvda']);
  let answered = false;
  const written = client.call('write', 0, 4096, 'p').finally(() => {
    answered = true;
  });
  await bench.sh('stat "$1" >/dev/null', vbd);
  t.equal(answered, false, 'it waits');
  await bench.succeed(['resume', 'xvda']);
  t.equal(await written, '4096');
  await client.release();
  await bench.detach('xvda');
}

async function loseServer(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  const vbd = await bench.attach(image);
  const client = await Client.open(t, bench, 'read', vbd);
  process.kill((await bench.list())[0]?.serverPid as number, 'SIGKILL');
  t.match(await client.call('read', 0, 4096), /connect|abort/, 'an error, and nobody hangs');
  await eventually('the bus has failed', 5_000, async () => (await bench.list())[0]?.state === 'failed');
  t.same(await bench.mounts(), [], 'the keeper has taken the mount away');
  t.match(await bench.fusetap(['attach', image, 'xvdb']), { status: 1, stderr: /has failed.*stop/ });
  await client.release();
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}

async function loseKeeper(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', SIZE, SIZE);
  const vbd = await bench.attach(image);
  const client = await Client.open(t, bench, 'read', vbd);
  process.kill((await bench.list())[0]?.keeperPid as number, 'SIGKILL');
  await eventually('the server is an orphan', 5_000, async () => (await bench.list())[0]?.state === 'orphaned');
  t.match(await bench.list(), [{ transport: 'fuse-native' }]);
  t.equal(await client.call('read', 0, 4096), '4096', 'it serves on');
  await bench.sh('cmp "$1" "$2"', vbd, image);
  const refused = await bench.fusetap(['detach', 'xvda']);
  t.match(refused, { status: 4, stderr: new RegExp(`in use by .*${client.pid}`) });
  await client.release();
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function loseMount(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', SIZE));
  await bench.sh('umount "$1"', vbd.replace(/\/xvda$/, ''));
  await eventually('the bus has failed', 5_000, async () => (await bench.list())[0]?.state === 'failed');
  await bench.succeed(['stop']);
  t.same(await bench.traces(), []);
}
