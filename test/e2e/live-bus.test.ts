/**
 * A bus that is alive stays, whoever begins or stops a bus on its directory: with another runtime directory, as another
 * user, in another mount namespace, while it is being replaced, or while its processes are stopped. A dead one is repaired.
 */
import { existsSync } from 'node:fs';
import { readdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Outcome } from './command.js';
import { type Bench, forEachWay, JUST_USER, onDefaultTransport, openBench, withRoot } from './fixtures.js';
import { busInfo, kill } from './kill-server.js';
import { USER_ID } from './runners.js';
import { standStill } from './stand-still.js';

t.setTimeout(300_000);

const SIZE = 4 << 20;
const WORD = 'PRECIOUS';

/** A ram disk on a directory of the user's own, which would be lost with its bus. */
async function precious(bench: Bench): Promise<{ directory: string; vbd: string }> {
  const directory = await bench.makeDirectory('disks');
  const vbd = await bench.attach('--bus', directory, `ram:${await bench.image('golden.img', SIZE)}`);
  await bench.sh(`printf ${WORD} | dd of="$1" conv=notrunc,fsync status=none`, vbd);
  return { directory, vbd };
}

async function isThere(t: Test, bench: Bench, vbd: string): Promise<void> {
  t.equal(await bench.sh('head -c 8 "$1"', vbd), WORD);
}

const elsewhere = (bench: Bench): { env: Record<string, string> } => ({
  env: { FUSETAP_RUNTIME_DIR: bench.path('other-runtime') },
});

/** Tries to begin and to stop a bus where another one is alive: each is refused, and names its user. */
async function refuseAll(t: Test, ask: (...words: string[]) => Promise<Outcome>, uid: number): Promise<void> {
  const refusal = { status: 4, stderr: new RegExp(`a bus of uid ${uid} is alive on `) };
  t.match(await ask('attach', 'other.img'), refusal, 'attach');
  t.match(await ask('start'), refusal, 'start');
  t.match(await ask('stop', '--force'), refusal, 'stop --force');
}

type Story = (t: Test, bench: Bench) => Promise<void>;

/** Each begins on a bench of its own, with an image that is not attached yet: other.img. */
const STORIES: Record<string, Story> = {
  'another runtime directory': useAnotherRuntimeDirectory,
  'its own runtime directory, without its files': loseRuntimeFiles,
  'another mount namespace': useAnotherNamespace,
  'one that does not answer: it may only be slow': stopKeeper,
  'below another file system it is hidden, and stays': hideBelowMount,
  'a dead one is repaired, whoever had begun it': repairDeadBus,
  'a bus that cannot begin leaves no directory to be filled': failToBegin,
  'a bus whose mount was taken away leaves none either': loseMount,
  'a runtime directory below a symbolic link is where that leads': useLinkedRuntime,
};

onDefaultTransport(t, ['dd', 'unshare', 'mount'], async (t, transport) => {
  for (const [name, story] of Object.entries(STORIES)) {
    await t.test(name, async (t) => {
      const bench = await openBench(t, transport);
      await bench.image('other.img', SIZE);
      await story(t, bench);
    });
  }
});

async function useAnotherRuntimeDirectory(t: Test, bench: Bench): Promise<void> {
  const { directory, vbd } = await precious(bench);
  const ask = (...words: string[]) => bench.fusetap([...words, '--bus', directory], elsewhere(bench));
  await refuseAll(t, ask, 0);
  t.same(await readdir(bench.path('other-runtime/state')), [], 'and nothing is left of the attempts');
  await isThere(t, bench, vbd);
}

async function loseRuntimeFiles(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(`ram:${await bench.image('golden.img', SIZE)}`);
  await bench.sh(`printf ${WORD} | dd of="$1" conv=notrunc,fsync status=none`, vbd);
  const { keeperPid, serverPid } = await busInfo(bench);
  await rm(join(bench.runtimeDir, 'state', '0'), { recursive: true });
  // its keeper makes them again: until then nobody else may begin, and then it is asked
  const { status, stderr } = await bench.fusetap(['attach', 'other.img']);
  t.ok(status === 0 || (status === 4 && /alive|already running/.test(stderr)), stderr);
  await isThere(t, bench, vbd);
  for (const pid of [keeperPid, serverPid]) kill(pid ?? 0);
}

async function useAnotherNamespace(t: Test, bench: Bench): Promise<void> {
  const { directory, vbd } = await precious(bench);
  const { FUSETAP_RUNTIME_DIR } = elsewhere(bench).env;
  const script = `exec env FUSETAP_RUNTIME_DIR="$1" "$2" "$3" attach --bus "$4" other.img`;
  const words = ['-m', 'sh', '-c', script, 'sh', FUSETAP_RUNTIME_DIR ?? '', process.execPath, bench.program, directory];
  t.match(await bench.execute('unshare', words), { status: 4, stderr: /a bus of uid 0 is alive on / });
  await isThere(t, bench, vbd);
}

async function stopKeeper(t: Test, bench: Bench): Promise<void> {
  const { directory, vbd } = await precious(bench);
  const { keeperPid, serverPid } = await busInfo(bench, directory);
  await standStill(keeperPid);
  // no server, and nobody to replace it yet: the state restarting, for as long as the keeper is stopped
  kill(serverPid ?? 0);
  const ask = bench.fusetap(['attach', '--bus', directory, 'other.img'], elsewhere(bench));
  t.match(await ask, { status: 4, stderr: /a bus of uid 0 is alive on / });
  process.kill(keeperPid ?? 0, 'SIGCONT');
  await isThere(t, bench, vbd);
}

async function hideBelowMount(t: Test, bench: Bench): Promise<void> {
  const { directory, vbd } = await precious(bench);
  await bench.sh('mount -t tmpfs none "$1"', directory);
  const other = await bench.succeed(['attach', '--bus', directory, 'other.img'], elsewhere(bench));
  await bench.succeed(['detach', '--bus', directory, 'xvda'], elsewhere(bench));
  t.equal(other, vbd);
  await bench.sh('umount "$1"', directory);
  await isThere(t, bench, vbd);
}

async function repairDeadBus(t: Test, bench: Bench): Promise<void> {
  const { directory } = await precious(bench);
  const { keeperPid, serverPid } = await busInfo(bench, directory);
  for (const pid of [keeperPid, serverPid]) kill(pid ?? 0);
  const words = ['--bus', directory, 'other.img'];
  const path = await bench.succeed(['attach', ...words], elsewhere(bench));
  t.equal(await bench.sh('cmp other.img "$1" && echo same', path), 'same');
  await bench.succeed(['detach', '--bus', directory, 'xvda'], elsewhere(bench));
}

async function failToBegin(t: Test, bench: Bench): Promise<void> {
  const fails = { env: { FUSETAP_RUNTIME_DIR: bench.runtimeDir, NODE_OPTIONS: '--require /nowhere.js' } };
  await bench.sh('mkdir -p runtime/bus/0 && touch runtime/bus/0/xvda');
  t.match(await bench.fusetap(['attach', 'other.img']), { status: 2, stderr: /contains xvda: remove / });
  await rm(bench.path('runtime/bus/0/xvda'));
  const sooner = await bench.fusetap(['attach', '--transport', 'kernel', 'no.img']);
  t.equal(sooner.status, 3);
  t.notOk(existsSync(bench.path('runtime/bus/0')));
  t.not((await bench.fusetap(['attach', 'other.img'], fails)).status, 0);
  t.notOk(existsSync(bench.path('runtime/bus/0')));
}

async function loseMount(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach('other.img');
  await bench.sh('umount -l "$1"', join(bench.runtimeDir, 'bus', '0'));
  await bench.sh('until ! test -e "$1"; do sleep 0.05; done', join(bench.runtimeDir, 'bus', '0'));
  t.match(await bench.try('echo x > "$1"', vbd), { stderr: /nonexistent|No such/ });
  await bench.fusetap(['stop', '--force']);
  t.same(await bench.traces(), []);
}

async function useLinkedRuntime(t: Test, bench: Bench): Promise<void> {
  await bench.makeDirectory('real');
  await symlink(bench.path('real'), bench.path('link'));
  const linked = { env: { FUSETAP_RUNTIME_DIR: bench.path('link/fusetap') } };
  const path = await bench.succeed(['attach', 'other.img'], linked);
  t.equal(path, bench.path('real/fusetap/bus/0/xvda'), 'the path without the link is printed');
  t.match(await bench.succeed(['ls'], linked), /xvda .* running/);
  const show = ['show', '--bus', bench.path('link/fusetap/bus/0'), '--json'];
  t.match(JSON.parse(await bench.succeed(show, linked)), { bus: '0' });
  await bench.succeed(['detach', bench.path('link/fusetap/bus/0/xvda')], linked);
  t.same(await bench.mounts(), []);
}

forEachWay(t, JUST_USER, async (t, transport) => {
  await t.test('a user keeps his bus from root, and root his from the user', async (t) => {
    const bench = await openBench(t, transport);
    await bench.image('other.img', SIZE);
    const { directory, vbd } = await precious(bench);
    const root = withRoot(bench);
    // not below the bench, which is the user's
    const env = { FUSETAP_RUNTIME_DIR: join(bench.directory, '..', 'root-runtime') };
    const asRoot = (...words: string[]): Promise<Outcome> => {
      return root.execute(process.execPath, [bench.program, ...words, '--bus', directory], { env });
    };
    await refuseAll(t, asRoot, USER_ID);
    await isThere(t, bench, vbd);

    // dead, it answers its own user and nobody else: root asks as him
    const { keeperPid, serverPid } = await busInfo(bench, directory);
    for (const pid of [keeperPid, serverPid]) kill(pid ?? 0);
    t.match(await asRoot('attach', 'other.img'), { status: 0 });
    const own = await bench.fusetap(['attach', '--bus', directory, 'other.img']);
    t.match(own, { status: 4, stderr: /a bus of uid 0 is alive on .* as uid 0/ });
    t.match(await asRoot('detach', 'xvda'), { status: 0 });
  });

  await t.test("a user's bus that is killed leaves no directory to be filled", async (t) => {
    const bench = await openBench(t, transport);
    const vbd = await bench.attach(await bench.image('disk.img', SIZE));
    const { keeperPid, serverPid } = await busInfo(bench);
    for (const pid of [keeperPid, serverPid]) kill(pid ?? 0);
    // by its name in the directory above: a mount that is dead, but still there, does not exist for `test -e` either
    await bench.sh('while ls "$1" | grep -qx 0; do sleep 0.05; done', join(bench.runtimeDir, 'bus'));
    t.match(await bench.try('echo x > "$1"', vbd), { stderr: /nonexistent|No such/ });
  });
});
