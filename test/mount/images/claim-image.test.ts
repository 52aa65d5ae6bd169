import { type ChildProcess, spawn } from 'node:child_process';
import { close } from 'node:fs';
import { chmod, link, open, symlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import t, { type Test } from 'tap';
import { FusetapError, type Holder } from '../../../drivers/errors.js';
import { type ClaimOptions, claimImage, takeMarks } from '../../../mount/images/claim-image.js';
import type { Mode } from '../../../mount/images/mode.js';
import { type OpenedImage, openImage } from '../../../mount/images/open-image.js';
import { flockRelease, isRangeLocked, lockRangeShared, tryFlockExclusive, unlockRange } from '../../../system/libc.js';
import { eventually } from '../../e2e/command.js';
import { AS_USER } from '../../e2e/runners.js';
import {
  attachLoop,
  endChild,
  inChild,
  makeFile,
  mountAt,
  needsProgram,
  needsRoot,
  needsRootAnd,
  run,
  sawOutput,
  scratch,
} from '../host.js';

const closeAsync = promisify(close);
const MODES = ['r', 'w', 'w!'] as const;

async function opened(t: Test, path: string, mode: Mode): Promise<OpenedImage & { close(): Promise<void> }> {
  const image = await openImage(path, mode, { mountpoint: '/no/such/bus' });
  let closing: Promise<void> | undefined;
  const end = (): Promise<void> => (closing ??= closeAsync(image.fd));
  t.teardown(end);
  return { ...image, close: end };
}

/** opens and claims: null, or the error; the claim ends with the test */
async function claim(t: Test, path: string, mode: Mode, options?: ClaimOptions): Promise<FusetapError | null> {
  const image = await opened(t, path, mode);
  try {
    await claimImage(image, mode, options);
    return null;
  } catch (error) {
    await image.close();
    if (error instanceof FusetapError) return error;
    throw error;
  }
}

/** which modes are refused now, as text; claims nothing for long */
async function refusedModes(t: Test, path: string): Promise<string> {
  const refused: string[] = [];
  for (const mode of MODES) {
    const image = await opened(t, path, mode);
    await claimImage(image, mode).then(
      (claim) => claim.release(),
      (error: FusetapError) => {
        t.equal(error.code, 'BUSY', error.message);
        t.notMatch(error.message, /\n/);
        t.match(error.hint, /w!/);
        refused.push(mode);
      },
    );
    await image.close();
  }
  return refused.join(' ');
}

t.test('rule 8: the table, through any path', async (t) => {
  const table: Record<Mode, string> = { r: 'w', w: 'r w', 'w!': 'w' };
  for (const held of MODES) {
    const path = await makeFile(t);
    const other = join(dirname(path), 'symbolic');
    await symlink(path, other);
    await link(path, join(dirname(path), 'hard'));
    const image = await opened(t, path, held);
    const taken = await claimImage(image, held);
    for (const name of [path, other, join(dirname(path), 'hard')]) {
      t.equal(await refusedModes(t, name), table[held], `held ${held}`);
    }
    taken.release();
    t.equal(await refusedModes(t, path), '', `${held} was released`);
  }
});

t.test('a claim is allowed beside users that it may share the image with', async (t) => {
  const path = await makeFile(t);
  const writer = await opened(t, path, 'w');
  const written = await claimImage(writer, 'w');
  const asked: Holder[] = [];
  const mayShareWith = async (holder: Holder): Promise<boolean> => {
    asked.push(holder);
    return holder.pid === process.pid;
  };
  t.match(await claim(t, path, 'r', { mayShareWith: () => false }), { code: 'BUSY' });
  t.equal(await claim(t, path, 'r', { mayShareWith }), null);
  t.match(asked[0], { pid: process.pid });
  t.equal(await refusedModes(t, path), 'r w', 'others are refused as before');
  written.release();
  t.equal(await refusedModes(t, path), 'w', 'what has come beside stays');
});

t.test('a claim of mode r is raised to w, without a moment in which it is none', async (t) => {
  const path = await makeFile(t);
  const image = await opened(t, path, 'r');
  const taken = await claimImage(image, 'r');
  const other = await opened(t, path, 'r');
  const others = await claimImage(other, 'r');
  const isOwn = (): boolean => false;
  await t.rejects(taken.raise(isOwn), { code: 'BUSY', message: /is attached with mode r/ });
  t.equal(await refusedModes(t, path), 'w', 'it is as before');
  others.release();
  await taken.raise(isOwn);
  t.equal(await refusedModes(t, path), 'r w', 'as if it was claimed with mode w');
  taken.lower();
  t.equal(await refusedModes(t, path), 'w');
  const again = await opened(t, path, 'r');
  (await claimImage(again, 'r')).release();
  await taken.raise(isOwn);
  taken.release();
  t.equal(await refusedModes(t, path), '', 'a release ends both');
});

t.test('each of the bytes of QEMU by itself refuses what conflicts with it', async (t) => {
  const path = await makeFile(t);
  const holder = await opened(t, path, 'r');
  const refused: Record<number, string> = {
    100: 'w',
    101: 'r w',
    102: 'w',
    103: 'r w',
    200: 'r w',
    201: 'w',
    202: '',
    203: 'w',
  };
  for (const [byte, modes] of Object.entries(refused)) {
    t.ok(lockRangeShared(holder.fd, Number(byte), 1));
    t.equal(await refusedModes(t, path), modes, `byte ${byte}`);
    unlockRange(holder.fd, Number(byte), 1);
  }
});

t.test('a write lock on the whole file refuses r and w', { skip: await needsProgram('perl') }, async (t) => {
  const path = await makeFile(t);
  const program = `use Fcntl; open(F, '+<', shift); my $lock = pack('s s x4 q q i x4', F_WRLCK, 0, 0, 0, 0);
    fcntl(F, F_SETLK, $lock) or die; $| = 1; print "ready\\n"; sleep 60`;
  const child = spawn('perl', ['-e', program, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => endChild(child));
  await sawOutput(child, 'ready');
  t.equal(await refusedModes(t, path), 'r w');
  t.match(await claim(t, path, 'r'), { message: `${path} is locked (fcntl) by pid ${child.pid} (perl)` });
});

t.test('several held claims refuse what any of them refuses', async (t) => {
  const path = await makeFile(t);
  t.equal(await claim(t, path, 'r'), null);
  t.equal(await claim(t, path, 'w!'), null);
  t.equal(await claim(t, path, 'r'), null);
  t.equal(await refusedModes(t, path), 'w');
});

t.test('a claim leaves exactly its locks, and a refused one leaves none', async (t) => {
  const bytes: Record<Mode, number[]> = {
    r: [100, 201, 203, 300],
    w: [100, 101, 103, 200, 201, 202, 203, 301],
    'w!': [302],
  };
  for (const mode of MODES) {
    const path = await makeFile(t);
    const image = await opened(t, path, mode);
    const taken = await claimImage(image, mode);
    const probe = await opened(t, path, 'r');
    const locked = (): number[] =>
      Array.from({ length: 600 }, (_, byte) => byte).filter((b) => isRangeLocked(probe.fd, b, 1));
    t.same(locked(), bytes[mode], mode);
    if (mode !== 'w!') t.match(await claim(t, path, 'w'), { code: 'BUSY' });
    t.same(locked(), bytes[mode], `${mode} after a refused claim`);
    t.ok(tryFlockExclusive(probe.fd), 'the flock is not kept');
    flockRelease(probe.fd);
    taken.release();
    t.same(locked(), []);
  }
});

t.test('closing the image ends the claim; the marks of a second open file outlive it', async (t) => {
  const path = await makeFile(t);
  const keeper = await opened(t, path, 'w');
  await claimImage(keeper, 'w');
  const server = await open(`/proc/self/fd/${keeper.fd}`, 'r+');
  t.ok(takeMarks(server.fd, 'w'));
  await keeper.close();
  t.equal(await refusedModes(t, path), 'r w');
  await server.close();
  t.equal(await refusedModes(t, path), '');
});

t.test('of many that come at once for writing one gets it', async (t) => {
  const path = await makeFile(t);
  const results = await Promise.all(Array.from({ length: 8 }, () => claim(t, path, 'w')));
  t.equal(results.filter((error) => error === null).length, 1);
  for (const error of results) if (error) t.match(error, { code: 'BUSY', message: /mode w/ });
});

t.test('the error names bus and vdev, and how to go on', async (t) => {
  const path = await makeFile(t);
  const describePid = (pid: number) => (pid === process.pid ? { bus: '7', vdev: 'xvdb' } : null);
  t.equal(await claim(t, path, 'r'), null);
  t.match(await claim(t, path, 'w', { describePid }), {
    message: `${path} is attached with mode r by bus 7 as xvdb`,
    hint: 'fusetap detach --bus 7 xvdb, attach it with mode r, or waive the check with mode w!',
    holders: [{ pid: process.pid, bus: '7', vdev: 'xvdb' }],
  });
  t.match(await claim(t, path, 'w'), { message: `${path} is attached with mode r by pid ${process.pid}` });
  const other = await makeFile(t);
  t.equal(await claim(t, other, 'w'), null);
  t.match(await claim(t, other, 'r'), { message: `${other} is attached with mode w by pid ${process.pid}` });
});

t.test('a held flock is waited for, then refused with its holder', { skip: await needsProgram('flock') }, async (t) => {
  const path = await makeFile(t);
  const child = spawn('flock', [path, 'sh', '-c', 'echo ready; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  t.teardown(() => endChild(child));
  await sawOutput(child, 'ready');
  t.match(await claim(t, path, 'r', { patienceMs: 60 }), { code: 'BUSY', message: /locked \(flock\) by pid \d+/ });
  t.equal(await claim(t, path, 'w!', { patienceMs: 0 }), null, 'w! asks nobody');
  const waiting = claim(t, path, 'r');
  await delay(100);
  // the shell that flock started has the lock by the same open file
  for (const { pid } of (await claim(t, path, 'r', { patienceMs: 0 }))?.holders ?? [])
    if (pid) process.kill(pid, 'SIGKILL');
  t.equal(await waiting, null);
});

// ── QEMU ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const noQemu = await needsProgram('qemu-io');

async function qemuIo(path: string, ...options: string[]): Promise<string> {
  return run('qemu-io', '-f', 'raw', ...options, '-c', 'read 0 512', path).then(
    () => 'reads',
    (error: { stderr: string }) => (/lock/.test(error.stderr) ? 'locked' : error.stderr),
  );
}

/** qemu-io that has the image open until the test ends */
async function holdByQemu(t: Test, path: string, ...options: string[]): Promise<ChildProcess> {
  const child = spawn('qemu-io', ['-f', 'raw', ...options, path], { stdio: ['pipe', 'pipe', 'inherit'] });
  t.teardown(() => endChild(child));
  child.stdin.write('read 0 512\n');
  await sawOutput(child, 'read 512/512');
  return child;
}

t.test('QEMU keeps to our claims', { skip: noQemu }, async (t) => {
  const path = await makeFile(t);
  const want: Record<Mode, string[]> = {
    r: ['reads', 'locked'],
    w: ['locked', 'locked'],
    'w!': ['reads', 'reads'],
  };
  for (const mode of MODES) {
    const image = await opened(t, path, mode);
    const taken = await claimImage(image, mode);
    t.same([await qemuIo(path, '-r'), await qemuIo(path)], want[mode], mode);
    taken.release();
  }
  t.equal(await qemuIo(path), 'reads');
});

t.test('we keep to the locks of a QEMU that writes', { skip: noQemu }, async (t) => {
  const path = await makeFile(t);
  const qemu = await holdByQemu(t, path);
  t.equal(await refusedModes(t, path), 'r w');
  const error = await claim(t, path, 'r');
  t.match(error, { message: `${path} is open for writing in pid ${qemu.pid} (qemu-io)`, hint: /end that program/ });
  t.match(error?.holders, [{ pid: qemu.pid, command: 'qemu-io' }]);
});

t.test('we keep to the locks of a QEMU that reads', { skip: noQemu }, async (t) => {
  const path = await makeFile(t);
  await holdByQemu(t, path, '-r');
  t.equal(await refusedModes(t, path), 'w');
  t.match(await claim(t, path, 'w'), { message: /is read by pid \d+ \(qemu-io\)/, hint: /attach it with mode r,/ });
});

// ── the kernel's own uses ───────────────────────────────────────────────────────────────────────────────────────────

t.test('loop devices: a writable one refuses r and w, a read-only one w', { skip: needsRoot }, async (t) => {
  const path = await makeFile(t, 8 << 20);
  await run('mkfs.ext4', '-q', path);
  await link(path, `${path}.hard`);
  await t.test('writable, bound by another name, and mounted', async (t) => {
    const loop = await attachLoop(t, `${path}.hard`);
    t.equal(await refusedModes(t, path), 'r w');
    t.match(await claim(t, path, 'w'), { message: `${path} is used by the loop device ${loop}`, holders: [{ loop }] });
    const place = await mountAt(t, join(await scratch(t), 'fs'), loop);
    const error = await claim(t, path, 'r');
    t.match(error, { message: `${path} is used by the loop device ${loop}, mounted on ${place}` });
    t.match(error, { hint: new RegExp(`^umount ${place}; losetup -d ${loop}; or`), holders: [{ loop, mount: place }] });
  });
  await t.test('read-only', async (t) => {
    await attachLoop(t, path, '--read-only');
    t.equal(await refusedModes(t, path), 'w');
  });
  await t.test('over another file', async (t) => {
    await attachLoop(t, await makeFile(t));
    // the kernel ends the loop device of the test before when its last user has closed it
    await eventually('the loop device ends', 30_000, async () => (await refusedModes(t, path)) === '');
    t.equal(await refusedModes(t, path), '');
  });
});

t.test('without privileges a loop device is found by its path', { skip: await needsRootAnd('setpriv') }, async (t) => {
  const path = await makeFile(t);
  await chmod(dirname(path), 0o755);
  await chmod(path, 0o644);
  const module = (name: string): string => new URL(`../../../mount/images/${name}.js`, import.meta.url).pathname;
  const [command = '', ...args] = [
    ...AS_USER,
    'test',
    '-r',
    module('claim-image'),
    '-a',
    '-x',
    dirname(path),
    '-a',
    '-x',
    process.execPath,
  ];
  const reachable = await run(command, ...args).then(
    () => true,
    () => false,
  );
  if (!reachable) {
    t.pass('not tried', { skip: 'other users cannot read this checkout, or run this Node' });
    return;
  }
  const loop = await attachLoop(t, path);
  const program = `import { claimImage } from '${module('claim-image')}'; import { openImage } from '${module('open-image')}';
    const image = await openImage('${path}', 'r', { mountpoint: '/no/such/bus' });
    await claimImage(image, 'r').then(() => console.log('claimed'), (error) => console.log(error.message));`;
  const [setpriv, ...drop] = AS_USER;
  const answer = await run(setpriv, ...drop, process.execPath, '--input-type=module', '-e', program);
  t.equal(answer, `${path} is used by the loop device ${loop}`);
});

t.test('a block device: its mounts, its loop devices', { skip: needsRoot }, async (t) => {
  const path = await makeFile(t, 8 << 20);
  await run('mkfs.ext4', '-q', path);
  const device = await attachLoop(t, path);
  const place = join(await scratch(t), 'fs');
  t.equal(await refusedModes(t, device), '');
  await t.test('mounted for writing', async (t) => {
    await mountAt(t, place, device);
    t.equal(await refusedModes(t, device), 'r w');
    t.match(await claim(t, device, 'r'), { message: `${device} is mounted on ${place}`, hint: `umount ${place}; or` });
  });
  await t.test('mounted read-only', async (t) => {
    await mountAt(t, place, '-r', device);
    t.equal(await refusedModes(t, device), 'w');
  });
  await t.test('mounted for writing, seen through a read-only bind mount alone', async (t) => {
    await mountAt(t, place, device);
    await run('mount', '-o', 'remount,bind,ro', place);
    t.equal(await refusedModes(t, device), 'r w');
  });
  await t.test('a loop device over it', async (t) => {
    await attachLoop(t, device, '--read-only');
    t.equal(await refusedModes(t, device), 'w');
  });
  await t.test('mounted in another mount namespace', async (t) => {
    const program = `import { execFileSync } from 'node:child_process'; execFileSync('mount', [process.argv[1], process.argv[2]]);
      console.log('ready'); setInterval(() => {}, 1e3)`;
    await inChild(t, program, [device, place], ['unshare', '--mount', '--propagation', 'slave']);
    t.equal(await refusedModes(t, device), 'r w');
  });
  // a namespace goes some time after its last process
  for (let tries = 0; tries < 50 && (await refusedModes(t, device)) !== ''; tries++) await delay(20);
  t.equal(await refusedModes(t, device), '');
});

t.test('a partition that is mounted refuses the whole disk', { skip: await needsRootAnd('addpart') }, async (t) => {
  const path = await makeFile(t, 16 << 20);
  const disk = await attachLoop(t, path, '--partscan');
  // told to the kernel, so that it need not know how to read a partition table
  await run('addpart', disk, '1', '2048', '16384');
  const partition = `${disk}p1`;
  await run('mkfs.ext4', '-q', partition);
  const place = await mountAt(t, join(await scratch(t), 'fs'), partition);
  t.equal(await refusedModes(t, disk), 'r w');
  t.equal(await refusedModes(t, partition), 'r w');
  t.match(await claim(t, path, 'w'), { message: new RegExp(`loop device ${disk}, mounted on ${place}`) });
});

t.test('swap space', { skip: await needsRootAnd('swapon') }, async (t) => {
  const device = await attachLoop(t, await makeFile(t, 4 << 20));
  await run('mkswap', device);
  try {
    await run('swapon', device);
  } catch {
    t.pass('not tried', { skip: 'this machine does not swap' });
    return;
  }
  t.teardown(() => run('swapoff', device));
  t.equal(await refusedModes(t, device), 'r w');
  t.match(await claim(t, device, 'r'), { message: /is swap space/, hint: `swapoff ${device}` });
});

t.test('a device that lies below another', { skip: await needsRootAnd('dmsetup') }, async (t) => {
  const device = await attachLoop(t, await makeFile(t, 4 << 20));
  const name = `fusetap-test-${basename(device)}-${process.pid}`;
  try {
    await run('dmsetup', 'create', name, '--table', `0 8192 linear ${device} 0`);
  } catch {
    t.pass('not tried', { skip: 'this kernel has no device mapper' });
    return;
  }
  t.teardown(() => run('dmsetup', 'remove', name));
  t.equal(await refusedModes(t, device), 'r w');
  t.match(await claim(t, device, 'r'), { message: /is part of \/dev\/dm-\d+/ });
});
