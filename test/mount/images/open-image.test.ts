import { spawn } from 'node:child_process';
import { close, closeSync, fstatSync, openSync, readlinkSync } from 'node:fs';
import { chmod, mkdir, open, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import type { Mode } from '../../../mount/images/mode.js';
import { type OpenedImage, openImage } from '../../../mount/images/open-image.js';
import { MNT_DETACH, mount, umount2 } from '../../../system/libc.js';
import { deviceName } from '../../../system/proc.js';
import { attachLoop, endChild, makeFile, mountAt, mountDeadBus, needsRoot, run, sawOutput, scratch } from '../host.js';

const closeAsync = promisify(close);
const MS_BIND = 0x1000;
const bus = { mountpoint: '/no/such/bus' };

async function opened(t: Test, path: string, mode: Mode = 'r'): Promise<OpenedImage> {
  const image = await openImage(path, mode, bus);
  t.teardown(() => closeAsync(image.fd));
  return image;
}

/** asserts that opening is refused so, and that the message is one line that names the path */
async function refused(t: Test, path: string, mode: Mode, want: { code: string; message?: RegExp; hint?: RegExp }) {
  const before = lowestFreeFd();
  const error = await openImage(path, mode, bus).then(
    () => null,
    (error: unknown) => error,
  );
  if (!(error instanceof FusetapError)) {
    t.fail(`${path} in mode ${mode}: ${error ?? 'was opened'}`);
    return;
  }
  t.match({ code: error.code, message: error.message, hint: error.hint ?? '' }, want);
  t.notMatch(error.message, /\n/);
  t.equal(lowestFreeFd(), before, 'no descriptor is left open');
}

/** the lowest free descriptor: it rises where one is left open */
function lowestFreeFd(): number {
  const fd = openSync('/dev/null', 'r');
  closeSync(fd);
  return fd;
}

t.test('a file is opened, with its size to the byte and its identity', async (t) => {
  const path = await makeFile(t, 12_345);
  const image = await opened(t, path, 'w');
  const stats = fstatSync(image.fd, { bigint: true });
  t.match(image, { path, realPath: path, sizeBytes: 12_345, kind: 'file', rdev: null });
  t.equal(image.ino, String(stats.ino));
  t.equal(image.dev, deviceName(stats.dev));
  t.equal(readlinkSync(`/proc/self/fd/${image.fd}`), path);
});

t.test('mode r opens read-only, w and w! for writing, none O_DIRECT or close-on-exec', async (t) => {
  const path = await makeFile(t);
  for (const [mode, access] of [
    ['r', 0],
    ['w', 2],
    ['w!', 2],
  ] as const) {
    const image = await opened(t, path, mode);
    const handle = await open(`/proc/self/fdinfo/${image.fd}`);
    const flags = Number.parseInt(/flags:\s+(\d+)/.exec(await handle.readFile('utf8'))?.[1] ?? '', 8);
    await handle.close();
    t.equal(flags & 3, access, mode);
    t.notOk(flags & 0o2000000, 'no O_CLOEXEC: an exec would wait for a file system that hangs');
    t.notOk(flags & 0o4000, 'no O_NONBLOCK');
    t.notOk(flags & 0o40000, 'O_DIRECT');
  }
});

t.test('symbolic links are followed, relative ones, absolute ones and those in directories', async (t) => {
  const path = await makeFile(t);
  const at = await scratch(t);
  await mkdir(join(at, 'sub'));
  await symlink(path, join(at, 'absolute'));
  await symlink('../absolute', join(at, 'sub', 'relative'));
  await symlink('sub', join(at, 'folder'));
  const image = await opened(t, join(at, 'folder', '..', 'folder', 'relative'));
  t.equal(image.realPath, path);
  t.equal(image.path, join(at, 'folder', '..', 'folder', 'relative'));
});

t.test('a link leads to a name that is not UTF-8', async (t) => {
  const at = await scratch(t);
  const odd = Buffer.concat([Buffer.from(`${at}/odd`), Buffer.from([0xff])]);
  await mkdir(odd);
  await writeFile(Buffer.concat([odd, Buffer.from('/bad'), Buffer.from([0xfe])]), 'x'.repeat(4096));
  await symlink(odd, join(at, 'folder'));
  await symlink(Buffer.concat([Buffer.from('folder/bad'), Buffer.from([0xfe])]), join(at, 'image'));
  const image = await opened(t, join(at, 'image'), 'w');
  t.match(image, { path: join(at, 'image'), sizeBytes: 4096, kind: 'file' });
  await refused(t, `${at}/odd\u{fffd}/bad`, 'w', { code: 'NOT_FOUND', message: /not UTF-8/, hint: /ln -s/ });
});

t.test('what cannot be a disk is refused', async (t) => {
  const at = await scratch(t);
  const plain = await makeFile(t);
  await run('mkfifo', join(at, 'fifo'));
  const server = createServer().listen(join(at, 'socket'));
  t.teardown(() => server.close());
  await writeFile(join(at, 'empty'), '');
  await symlink('loop', join(at, 'loop'));
  for (const mode of ['r', 'w', 'w!'] as const) {
    await refused(t, at, mode, { code: 'USAGE', message: /is a directory/ });
    await refused(t, join(at, 'fifo'), mode, { code: 'USAGE', message: /is a FIFO/ });
    await refused(t, join(at, 'socket'), mode, { code: 'USAGE', message: /is a socket/ });
    await refused(t, '/dev/null', mode, { code: 'USAGE', message: /is a character device/ });
    await refused(t, join(at, 'empty'), mode, { code: 'USAGE', message: /the image is empty/, hint: /fusetap create/ });
    await refused(t, join(at, 'none'), mode, { code: 'NOT_FOUND', message: /no such image/ });
    await refused(t, join(plain, 'below'), mode, { code: 'NOT_FOUND' });
    await refused(t, join(at, 'loop'), mode, { code: 'USAGE', message: /circle/ });
    await refused(t, join(at, 'x'.repeat(256)), mode, { code: 'USAGE', message: /too long/ });
    await refused(t, join(at, 'a\0b'), mode, { code: 'USAGE', message: /'.*a\\x00b'/ });
    await refused(t, join(at, 'a\nb'), mode, { code: 'USAGE', message: /\\n/ });
    await refused(t, 'disk.img', mode, { code: 'USAGE', message: /not absolute/ });
    await refused(t, '', mode, { code: 'USAGE' });
  }
});

t.test('an image of more bytes than a Number holds is refused', { skip: needsRoot }, async (t) => {
  const at = await mountAt(t, join(await scratch(t), 'tmpfs'), '-t', 'tmpfs', 'none');
  await writeFile(join(at, 'huge'), '');
  await run('truncate', '-s', '9007199254740991', join(at, 'huge'));
  const image = await openImage(join(at, 'huge'), 'r', bus);
  t.equal(image.sizeBytes, Number.MAX_SAFE_INTEGER);
  await closeAsync(image.fd);
  await run('truncate', '-s', '9007199254740992', join(at, 'huge'));
  await refused(t, join(at, 'huge'), 'r', { code: 'UNSUPPORTED', message: /9007199254740992 bytes/ });
});

t.test('an image that cannot be written is refused for writing, with the way out', { skip: needsRoot }, async (t) => {
  const hint = /mode r/;
  const readOnly = await mountAt(t, join(await scratch(t), 'ro'), '-t', 'tmpfs', 'none');
  await writeFile(join(readOnly, 'disk.img'), 'x');
  await run('mount', '-o', 'remount,ro', readOnly);
  await refused(t, join(readOnly, 'disk.img'), 'w', { code: 'DENIED', message: /file system is read-only/, hint });
  const { fd } = await openImage(join(readOnly, 'disk.img'), 'r', bus);
  await closeAsync(fd);
});

t.test('an immutable image is refused for writing', { skip: needsRoot }, async (t) => {
  const path = await makeFile(t);
  try {
    await run('chattr', '+i', path);
  } catch {
    t.pass('not tried', { skip: 'this file system has no immutable files' });
    return;
  }
  t.teardown(() => run('chattr', '-i', path));
  await refused(t, path, 'w', { code: 'DENIED', message: /immutable/, hint: /mode r/ });
  const { fd } = await openImage(path, 'r', bus);
  await closeAsync(fd);
});

t.test('a program that runs is refused for writing', async (t) => {
  const path = join(await scratch(t), 'program');
  await run('cp', process.execPath, path);
  await chmod(path, 0o755);
  const program = 'console.log("ready"); setInterval(() => {}, 1e3)';
  const child = spawn(path, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => endChild(child));
  await sawOutput(child, 'ready');
  await refused(t, path, 'w', { code: 'DENIED', message: /a program that runs/, hint: /mode r/ });
});

t.test('root may write to a file of mode 0444, as open(2) has it', { skip: needsRoot }, async (t) => {
  const path = await makeFile(t);
  await chmod(path, 0o444);
  await opened(t, path, 'w');
});

/** A loop device that nothing is bound to. A test that runs at the same time may take it: then another one. */
async function unboundLoop(): Promise<string> {
  for (;;) {
    const path = await run('losetup', '--find');
    const image = await openImage(path, 'r', bus).catch(() => null);
    if (image === null) return path;
    await closeAsync(image.fd);
  }
}

t.test(
  'block devices: their size, read-only ones, and those that nothing is bound to',
  { skip: needsRoot },
  async (t) => {
    const path = await makeFile(t, 3 << 20);
    const writable = await attachLoop(t, path);
    const image = await openImage(writable, 'w', bus);
    await closeAsync(image.fd);
    t.match(image, { kind: 'block', sizeBytes: 3 << 20, rdev: /^7:\d+$/ });
    const readOnly = await attachLoop(t, path, '--read-only');
    await refused(t, readOnly, 'w', { code: 'DENIED', hint: /mode r/ });
    const { fd } = await openImage(readOnly, 'r', bus);
    await closeAsync(fd);
    await refused(t, await unboundLoop(), 'r', { code: 'USAGE', message: /no image is bound to \/dev\/loop/ });
  },
);

t.test('an image on the bus itself is refused without asking the bus', { skip: needsRoot }, async (t) => {
  const at = await scratch(t);
  const own = { ownDev: await mountDeadBus(t, join(at, 'bus')), mountpoint: join(at, 'bus') };
  const other = join(at, 'other');
  await mkdir(other);
  // not by mount(8), which would ask the bus
  mount({ source: own.mountpoint, target: other, fileSystemType: '', flags: MS_BIND, data: '' });
  t.teardown(() => umount2(other, MNT_DETACH));
  await symlink(join(own.mountpoint, 'xvda'), join(at, 'link'));
  await symlink('bus', join(at, 'folder'));
  const ways = [join(own.mountpoint, 'xvda'), join(other, 'xvda'), join(at, 'link'), join(at, 'folder', 'xvda'), other];
  for (const path of ways) {
    const want = { code: 'USAGE', message: /on the bus itself/, hint: /another bus/ };
    await t.rejects(openImage(path, 'r', own), want, path);
  }
  await t.rejects(
    openImage(join(at, 'link'), 'r', { mountpoint: own.mountpoint }),
    { code: 'USAGE' },
    'before the mount',
  );
});
