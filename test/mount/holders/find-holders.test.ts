import { link, mkdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import type { Holder } from '../../../drivers/errors.js';
import {
  describeHolders,
  findHolders,
  type HeldFile,
  type HolderOptions,
} from '../../../mount/holders/find-holders.js';
import { deviceName } from '../../../system/proc.js';
import {
  attachLoop,
  inChild,
  makeFile,
  mountAt,
  mountDeadBus,
  needsRoot,
  needsRootAnd,
  run,
  scratch,
} from '../host.js';

const LIBC = new URL('../../../system/libc.js', import.meta.url).href;

/** programs that hold the file of process.argv[1] */
const OPEN = `import fs from 'node:fs'; fs.openSync(process.argv[1]); console.log('ready'); setInterval(() => {}, 1e3)`;
const O_PATH = OPEN.replace('process.argv[1])', 'process.argv[1], 0o10000000)');
const MAPPED = `import fs from 'node:fs'; import { mapShared } from '${LIBC}'; const fd = fs.openSync(process.argv[1], 'r+');
  mapShared(fd, 4096); fs.closeSync(fd); console.log('ready'); setInterval(() => {}, 1e3)`;
const CWD = `process.chdir(process.argv[1]); console.log('ready'); setInterval(() => {}, 1e3)`;

async function identify(path: string): Promise<HeldFile> {
  const { dev, ino } = await stat(path, { bigint: true });
  return { mountDev: deviceName(dev), ino, path };
}

async function pidsOf(file: HeldFile, options?: HolderOptions): Promise<(number | undefined)[]> {
  return (await findHolders(file, options)).map(({ pid }) => pid);
}

t.test('nobody holds a file that nobody opened', async (t) => {
  const path = await makeFile(t);
  t.same(await findHolders(await identify(path)), []);
  t.same(await findHolders({ mountDev: '0:9999', ino: 1, path: '/no/such/file' }), []);
});

t.test('a process that has it open, with pid and command', async (t) => {
  const path = await makeFile(t);
  const pid = await inChild(t, OPEN, [path]);
  const [holder, ...others] = await findHolders(await identify(path));
  t.equal(holder?.pid, pid);
  t.match(describeHolders(holder ? [holder] : []), new RegExp(`^pid ${pid} \\(\\w+\\)$`));
  t.same(others, []);
});

t.test('O_PATH, and a mapping whose descriptor was closed', async (t) => {
  const path = await makeFile(t);
  const pids = [await inChild(t, O_PATH, [path]), await inChild(t, MAPPED, [path])];
  t.same(
    await pidsOf(await identify(path)),
    pids.sort((a, b) => a - b),
  );
});

t.test(
  'by any name: symbolic link, hard link, bind mount, and after it was removed',
  { skip: needsRoot },
  async (t) => {
    const at = await scratch(t);
    const path = join(at, 'disk.img');
    await writeFile(path, Buffer.alloc(8192));
    await symlink(path, join(at, 'symbolic'));
    await link(path, join(at, 'hard'));
    const bound = await mountAt(t, join(at, 'bound'), '--bind', at);
    const file = await identify(path);
    const pids: number[] = [];
    for (const name of [join(at, 'symbolic'), join(at, 'hard'), join(bound, 'disk.img')]) {
      pids.push(await inChild(t, OPEN, [name]));
    }
    t.same(await pidsOf(file), pids);
    await rm(path);
    t.same(await pidsOf(file), pids);
  },
);

t.test('the same inode number on another file system is another file', { skip: needsRoot }, async (t) => {
  const at = await scratch(t);
  const files: HeldFile[] = [];
  for (const name of ['one', 'two']) {
    const place = await mountAt(t, join(at, name), '-t', 'tmpfs', 'none');
    await writeFile(join(place, 'disk.img'), Buffer.alloc(8192));
    files.push(await identify(join(place, 'disk.img')));
  }
  const [one, two] = files as [HeldFile, HeldFile];
  t.equal(one.ino, two.ino, 'tmpfs counts its own inodes');
  const pids = [await inChild(t, OPEN, [one.path]), await inChild(t, MAPPED, [one.path])];
  t.same(
    await pidsOf(one),
    pids.sort((a, b) => a - b),
  );
  t.same(await pidsOf(two), []);
});

t.test('from another mount namespace', { skip: await needsRootAnd('unshare') }, async (t) => {
  const path = await makeFile(t);
  const unshare = ['unshare', '--mount', '--propagation', 'slave'];
  const pid = await inChild(t, OPEN, [path], unshare);
  t.same(await pidsOf(await identify(path)), [pid]);
});

t.test('a working directory holds its directory', async (t) => {
  const at = await scratch(t);
  await mkdir(join(at, 'sub'));
  const pid = await inChild(t, CWD, [at]);
  t.same(await pidsOf(await identify(at)), [pid]);
  t.same(await pidsOf(await identify(join(at, 'sub'))), []);
});

t.test('loop devices, what they are mounted on, and bind mounts', { skip: needsRoot }, async (t) => {
  const at = await scratch(t);
  const path = join(at, 'disk.img');
  await run('truncate', '-s', '8M', path);
  await run('mkfs.ext4', '-q', path);
  const file = await identify(path);
  const loop = await attachLoop(t, path);
  t.same(await findHolders(file), [{ loop }]);
  const place = await mountAt(t, join(at, 'with space'), '-r', loop);
  const holders = await findHolders(file);
  t.same(holders, [{ loop, mount: place }]);
  t.equal(describeHolders(holders), `${loop} mounted on '${place}'`);
});

t.test('a loop device over a bind mount of it', { skip: needsRoot }, async (t) => {
  const path = await makeFile(t);
  const bound = join(await scratch(t), 'bound');
  await writeFile(bound, '');
  await mountAt(t, bound, '--bind', path);
  const file = await identify(path);
  t.same(await findHolders(file), [{ mount: bound }]);
  const loop = await attachLoop(t, bound);
  t.same(await findHolders(file), [{ loop }, { mount: bound }]);
});

t.test('processes can be left out, and fusetap names its own', async (t) => {
  const path = await makeFile(t);
  const file = await identify(path);
  const [one, two] = [await inChild(t, OPEN, [path]), await inChild(t, OPEN, [path])];
  t.same(await pidsOf(file, { excludePids: [one] }), [two]);
  const describePid = async (pid: number) => (pid === one ? { bus: '7', vdev: 'xvdb' } : null);
  const holders = await findHolders(file, { describePid });
  t.match(holders[0], { pid: one, bus: '7', vdev: 'xvdb' });
  t.equal(holders[1]?.bus, undefined);
  t.match(describeHolders(holders), /^bus 7 as xvdb, pid \d+ \(\w+\)$/);
});

t.test('a bus that nobody serves is not asked', { skip: needsRoot }, async (t) => {
  const at = await scratch(t);
  const mountDev = await mountDeadBus(t, at);
  t.same(await findHolders({ mountDev, ino: 2, path: join(at, 'xvda') }), []);
});

t.test('the event loop goes on while holders are looked for', async (t) => {
  const file = await identify(await makeFile(t));
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  for (let i = 0; i < 20; i++) await findHolders(file);
  clearInterval(timer);
  t.ok(turns > 5, `${turns} turns`);
});

t.test('holders in one line, whatever their names hold', async (t) => {
  const holders: Holder[] = [{ pid: 1, command: 'a\nb' }, { pid: 2 }, { mount: '/m\u2028n' }, { bus: '0', pid: 3 }];
  t.equal(describeHolders(holders), "pid 1 ('a\\nb'), pid 2, a mount at '/m\\u{2028}n', bus 0");
  t.match(describeHolders([]), /cannot be seen/);
  const many = Array.from({ length: 20 }, (_, i) => ({ pid: i }));
  t.match(describeHolders(many), /pid 5 and 14 more$/);
});
