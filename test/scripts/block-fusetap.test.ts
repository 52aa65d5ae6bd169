/** The hotplug script of Xen, with a stand-in for xenstore: a directory in which each key is a file. */
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { eventually, type Outcome } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';

t.setTimeout(900_000);

const SCRIPT = fileURLToPath(new URL('../../../scripts/block-fusetap', import.meta.url));

const READ = '#!/bin/sh\ncat "$XENSTORE/$1" 2>/dev/null\n';
const WRITE = `#!/bin/sh
while [ $# -gt 0 ]; do
  mkdir -p "$(dirname "$XENSTORE/$1")"
  printf %s "$2" >"$XENSTORE/$1"
  shift 2
done
`;

onDefaultTransport(t, ['losetup', 'flock', 'cmp', 'awk'], async (t, transport) => {
  const bench = await openBench(t, transport);
  await bench.makeDirectory('bin');
  for (const [name, text] of [
    ['xenstore-read', READ],
    ['xenstore-write', WRITE],
  ] as const) {
    await writeFile(bench.path(`bin/${name}`), text);
    await chmod(bench.path(`bin/${name}`), 0o755);
  }
  await t.test('add and remove', (t) => addAndRemove(t, bench));
  await t.test('two at once', (t) => addTwo(t, bench));
  await t.test('what fails', (t) => refuse(t, bench));
  await t.test('an add that fails late is undone', (t) => undoAdd(t, bench));
  await t.test('an add that takes too long is undone', (t) => undoLateAdd(t, bench));
  await t.test('a remove of what is left', (t) => removeRests(t, bench));
  await t.test('a remove that cannot find out what there is fails', (t) => failToRemove(t, bench));
  t.same(await bench.traces(), [], 'nothing is left');
});

const backend = (domain: number, slot: number): string => `backend/vbd/${domain}/${slot}`;

async function store(bench: Bench, path: string, keys: Record<string, string>): Promise<void> {
  for (const [key, value] of Object.entries(keys)) {
    const file = bench.path(`xenstore/${path}/${key}`);
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, value);
  }
}

async function stored(bench: Bench, path: string, key: string): Promise<string | null> {
  return readFile(bench.path(`xenstore/${path}/${key}`), 'utf8').catch(() => null);
}

/** Runs the script as libxl does: with next to no environment. */
function hotplug(bench: Bench, word: string, path: string, more: Record<string, string> = {}): Promise<Outcome> {
  const env = {
    PATH: `${bench.path('bin')}:${dirname(process.execPath)}:/bin:/usr/bin`,
    XENBUS_PATH: path,
    XENSTORE: bench.path('xenstore'),
    FUSETAP: `${process.execPath} ${bench.program}`,
    ...more,
  };
  return bench.execute('sh', [SCRIPT, word], { env });
}

async function succeed(t: Test, bench: Bench, word: string, path: string): Promise<void> {
  const { status, stderr } = await hotplug(bench, word, path);
  t.equal(status, 0, `${word} ${path} ${stderr}`);
}

async function addAndRemove(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('a.img', 1 << 20, 1 << 20);
  const path = backend(7, 51712);
  await store(bench, path, { params: `tapdisk:aio:${image}`, mode: 'w' });
  await succeed(t, bench, 'add', path);
  t.equal(await stored(bench, path, 'hotplug-status'), 'connected');
  const device = (await stored(bench, path, 'node')) as string;
  t.match(device, /^\/dev\/loop\d+$/);
  t.equal(await stored(bench, path, 'physical-device'), await bench.sh('stat -c %t:%T "$1"', device), 'in hexadecimal');
  t.equal(await stored(bench, path, 'physical-device-path'), device);
  t.match(await bench.list(), [{ bus: '7', vdev: 'xvda', slot: 51712, mode: 'w', image }], "the domain's bus");
  await bench.sh('cmp "$1" "$2"; printf written | dd of="$1" conv=notrunc,fsync status=none', device, image);
  t.equal(await bench.sh('head -c 7 "$1"', image), 'written', 'the loop device is the image');
  await succeed(t, bench, 'add', path);
  t.equal((await bench.list()).length, 1, 'a second add does nothing');
  await succeed(t, bench, 'remove', path);
  t.same(await bench.traces(), []);
  t.not(
    await bench.sh('losetup --noheadings --output BACK-FILE "$1" 2>&1 || true', device),
    image,
    'the loop device is free',
  );
  await succeed(t, bench, 'remove', path);
}

async function addTwo(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('golden, one.img', 1 << 20, 1 << 20);
  const slots = [51712, 51728, 768];
  for (const slot of slots)
    await store(bench, backend(8, slot), { params: `ram:${image}`, mode: slot === 768 ? 'r' : 'w' });
  await Promise.all(slots.map((slot) => succeed(t, bench, 'add', backend(8, slot))));
  const devices = await Promise.all(slots.map((slot) => stored(bench, backend(8, slot), 'node')));
  t.equal(new Set(devices).size, slots.length, `a device each: ${devices}`);
  t.match(await bench.list(), [{ vdev: 'hda', mode: 'r' }, { vdev: 'xvda' }, { vdev: 'xvdb' }]);
  t.equal(await bench.sh('blockdev --getro "$1"', devices[2] as string), '1', 'mode r is a read-only device');
  await Promise.all(slots.map((slot) => succeed(t, bench, 'remove', backend(8, slot))));
  t.same(await bench.traces(), []);
}

async function undoAdd(t: Test, bench: Bench): Promise<void> {
  const path = backend(12, 51712);
  await store(bench, path, { params: await bench.image('late.img', 1 << 20), mode: 'w' });
  for (const program of ['xenstore-write', 'stat']) {
    await bench.sh(
      'test ! -e "bin/$1" || mv "bin/$1" kept; printf "#!/bin/sh\\nexit 1\\n" >"bin/$1"; chmod 755 "bin/$1"',
      program,
    );
    t.equal((await hotplug(bench, 'add', path)).status, 1, program);
    await bench.sh('rm "bin/$1"; test ! -e kept || mv kept "bin/$1"', program);
    t.same(await bench.list(), [], 'it is detached');
    t.same(await bench.loops(), [], 'and its loop device is let go');
  }
}

/** What xl does after a remove: the keys of the disk are gone. */
async function forget(bench: Bench, path: string): Promise<void> {
  await bench.sh('rm -r "$1"', bench.path(`xenstore/${path}`));
}

async function undoLateAdd(t: Test, bench: Bench): Promise<void> {
  const path = backend(14, 51712);
  const image = await bench.image('slow.img', 1 << 20);
  await store(bench, path, { params: `ram:${image}`, mode: 'w' });
  // as a copy that takes long: the attach itself is done, its answer comes too late
  const slow = bench.path('bin/slow-fusetap');
  await writeFile(slow, `#!/bin/sh\n${process.execPath} ${bench.program} "$@"\n[ "$1" != attach ] || sleep 60\n`);
  await chmod(slow, 0o755);
  const begun = performance.now();
  const { status, stderr } = await hotplug(bench, 'add', path, { FUSETAP: slow, FUSETAP_HOTPLUG_LIMIT: '5' });
  t.equal(status, 1);
  t.match(
    stderr,
    /slow\.img was not attached within 5 s; a large ram image: attach it before, with fusetap attach ram:/,
  );
  t.ok(performance.now() - begun < 30_000);
  t.match(await stored(bench, path, 'hotplug-error'), /not attached within 5 s/);
  t.same(await bench.list(), [], 'it is detached');
  // the lock of another domain hinders nobody, that of the same domain only for a time
  const held = bench.path('held');
  await bench.sh(
    '(flock 9; touch "$2"; exec sleep 60) 9>>"$1" >/dev/null 2>&1 & echo $! >"$2.pid"',
    await lockOf(bench, 14),
    held,
  );
  await bench.sh('until [ -e "$1" ]; do sleep 0.1; done', held);
  const locked = await hotplug(bench, 'add', path, { FUSETAP_HOTPLUG_LIMIT: '4' });
  t.match(locked, { status: 1, stderr: /another hotplug script has worked on this domain for more than 2 s/ });
  const other = backend(15, 51712);
  await store(bench, other, { params: `ram:${image}`, mode: 'w' });
  await succeed(t, bench, 'add', other);
  await succeed(t, bench, 'remove', other);
  await bench.sh('kill "$(cat "$1")"; rm "$2"', `${held}.pid`, await lockOf(bench, 14));
}

async function lockOf(bench: Bench, domain: number): Promise<string> {
  return bench.path(`runtime/hotplug/${domain}`);
}

/** `remove` leaves nothing, whichever of loop device, keeper, server and image is gone already. */
async function removeRests(t: Test, bench: Bench): Promise<void> {
  const kill = async (): Promise<void> => {
    const pids = (await bench.list()).flatMap(({ keeperPid, serverPid }) => [keeperPid, serverPid]);
    for (const pid of pids) if (pid !== null && pid !== undefined) process.kill(pid, 'SIGKILL');
    await bench.sh('while kill -0 "$@" 2>/dev/null; do sleep 0.1; done', ...pids.map(String));
  };
  const steps: Record<string, (path: string, image: string) => Promise<unknown>> = {
    'keeper and server are killed': kill,
    'they are killed, and the bus is removed': async () => {
      await kill();
      await bench.sh('umount -l "$1"', bench.path('runtime/bus/16'));
    },
    'the loop device is gone': async (path) =>
      bench.sh('losetup -d "$1"', (await stored(bench, path, 'node')) as string),
    'the image is gone': (_, image) => bench.sh('rm "$1"', image),
    'the bus was stopped by force': () => bench.succeed(['stop', '--bus', '16', '--force']),
    'all of them': async (path, image) => {
      await kill();
      await bench.sh('losetup -d "$1"; rm "$2"', (await stored(bench, path, 'node')) as string, image);
    },
  };
  for (const [what, step] of Object.entries(steps)) {
    const path = backend(16, 51712);
    const image = await bench.image('rest.img', 1 << 20);
    await store(bench, path, { params: image, mode: 'w' });
    await succeed(t, bench, 'add', path);
    const device = (await stored(bench, path, 'node')) as string;
    await step(path, image);
    await succeed(t, bench, 'remove', path);
    t.same(await bench.traces(), [], `nothing is left after a remove: ${what}`);
    // the kernel ends a loop device when the last program has closed it, for example udev
    const file = (): Promise<string> => bench.sh('losetup --noheadings --output BACK-FILE "$1" 2>&1 || true', device);
    await eventually(`no loop device is left: ${what}`, 10_000, async () => !(await file()).includes('/xvda'));
    await succeed(t, bench, 'remove', path);
    await forget(bench, path);
  }
}

async function failToRemove(t: Test, bench: Bench): Promise<void> {
  const path = backend(13, 51712);
  await store(bench, path, { params: await bench.image('stays.img', 1 << 20), mode: 'w' });
  await succeed(t, bench, 'add', path);
  const missing = { FUSETAP: '/nowhere/fusetap' };
  const { status, stderr } = await hotplug(bench, 'remove', path, missing);
  t.equal(status, 1);
  t.match(stderr, /domain 13, disk 51712: cannot find out whether it is attached/);
  t.equal((await bench.list()).length, 1);
  await succeed(t, bench, 'remove', path);
  await succeed(t, bench, 'remove', path);
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  const fail = async (word: string, path: string, reason: RegExp): Promise<void> => {
    const { status, stderr } = await hotplug(bench, word, path);
    t.equal(status, 1, stderr);
    t.match(stderr, reason);
    if (path === '') return;
    t.equal(await stored(bench, path, 'hotplug-status'), 'error');
    t.match(await stored(bench, path, 'hotplug-error'), reason);
  };
  const image = await bench.image('b.img', 1 << 20);
  const [one, other] = [backend(9, 51712), backend(10, 51712)];
  await store(bench, one, { params: image, mode: 'w' });
  await store(bench, other, { params: `aio:${image}`, mode: 'w' });
  await succeed(t, bench, 'add', one);
  await store(bench, '/local/domain/10', { name: 'web' });
  await store(bench, other, { dev: 'xvda' });
  const reason =
    /^(block-fusetap: )?domain 10 \(web\), disk xvda: .*b\.img is attached with mode w by domain 9 as xvda; w!: before the image in target= waives the check$/m;
  await fail('add', other, reason);
  for (const waived of [
    { mode: 'w!', params: image },
    { mode: 'w', params: `w!:aio:${image}` },
  ]) {
    await store(bench, other, waived);
    await succeed(t, bench, 'add', other);
    t.equal(await stored(bench, other, 'hotplug-status'), 'connected', 'w! waives the check');
    await succeed(t, bench, 'remove', other);
    await forget(bench, other);
  }
  await succeed(t, bench, 'remove', one);
  await store(bench, backend(11, 51712), { params: '/nowhere', mode: 'r' });
  await fail('add', backend(11, 51712), /\/nowhere: no such image/);
  for (const [params, why] of [
    ['aio:b.img', /target=aio:b\.img is a relative path: it must begin with \//],
    ['b.img', /relative path/],
    ['vhdz:/b.img', /no driver 'vhdz'/],
  ] as const) {
    await store(bench, backend(11, 51712), { params });
    await fail('add', backend(11, 51712), why);
  }
  // libxl calls it also after an add that failed
  await succeed(t, bench, 'remove', backend(11, 51712));
  t.equal(await bench.sh('ls "$1"', bench.path('runtime/hotplug')), '', 'no lock file is left');
  await store(bench, backend(11, 51728), { mode: 'r' });
  await fail('add', backend(11, 51728), /no params/);
  await store(bench, backend(11, 51744), { params: image, mode: 'x' });
  await fail('add', backend(11, 51744), /no mode 'x'/);
  await fail('add', '', /XENBUS_PATH/);
  await fail('online', backend(11, 51760), /usage/);
  t.same(await bench.traces(), []);
}
