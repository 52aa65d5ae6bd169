/** The hotplug script of Xen, with a stand-in for xenstore: a directory in which each key is a file. */
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import type { Outcome } from '../e2e/command.js';
import { type Bench, onDefaultTransport, openBench } from '../e2e/fixtures.js';

t.setTimeout(180_000);

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

async function failToRemove(t: Test, bench: Bench): Promise<void> {
  const path = backend(13, 51712);
  await store(bench, path, { params: await bench.image('stays.img', 1 << 20), mode: 'w' });
  await succeed(t, bench, 'add', path);
  const missing = { FUSETAP: '/nowhere/fusetap' };
  const { status, stderr } = await hotplug(bench, 'remove', path, missing);
  t.equal(status, 1);
  t.match(stderr, /cannot find out whether 51712 is attached/);
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
  await fail('add', other, /b\.img is attached with mode w by bus 9 as xvda/);
  await store(bench, other, { mode: 'w!' });
  await succeed(t, bench, 'add', other);
  t.equal(await stored(bench, other, 'hotplug-status'), 'connected', 'w! waives the check');
  await succeed(t, bench, 'remove', other);
  await succeed(t, bench, 'remove', one);
  await store(bench, backend(11, 51712), { params: '/nowhere', mode: 'r' });
  await fail('add', backend(11, 51712), /\/nowhere: no such image/);
  await store(bench, backend(11, 51728), { mode: 'r' });
  await fail('add', backend(11, 51728), /no params/);
  await store(bench, backend(11, 51744), { params: image, mode: 'x' });
  await fail('add', backend(11, 51744), /no mode 'x'/);
  await fail('add', '', /XENBUS_PATH/);
  await fail('online', backend(11, 51760), /usage/);
  t.same(await bench.traces(), []);
}
