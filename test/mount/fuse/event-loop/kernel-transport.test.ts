/** The kernel transport alone, on a real mount, as its clients see it. Client and transport are separate processes. */
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { constants as system } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { dir } from 'tmp-promise';
import { MNT_DETACH, umount2 } from '../../../../system/libc.js';
import { eventually } from '../../../e2e/command.js';
import { type Client, startClient } from '../client.js';
import {
  content,
  DISK_BYTES,
  MEMORY,
  NAMES,
  OWNER,
  PLAIN,
  startTransport,
  type TransportChild,
} from '../transport-child.js';

const { EIO, EINVAL, ENOENT, ENOSPC, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, EROFS } = system.errno;
const { O_RDONLY, O_RDWR, O_TRUNC, O_DSYNC, O_DIRECT } = constants;
t.setTimeout(90_000);
const SEEK_DATA = 3;
const SEEK_HOLE = 4;

function whyNot(): string | false {
  if (process.getuid?.() !== 0) return 'needs root to mount';
  try {
    closeSync(openSync('/dev/fuse', O_RDWR));
    return false;
  } catch (error) {
    return `cannot open /dev/fuse: ${(error as Error).message}`;
  }
}
const skip = whyNot();

interface Mounted {
  readonly directory: string;
  readonly transport: TransportChild;
  readonly client: Client;
  newClient(): Client;
}

async function mounted(t: Test): Promise<Mounted> {
  const { path: directory, cleanup } = await dir();
  const transport = await startTransport({ mount: directory });
  const clients: Client[] = [];
  const newClient = (): Client => {
    const client = startClient(directory);
    clients.push(client);
    return client;
  };
  t.teardown(async () => {
    // first unmount: clients that wait then get an error when the transport ends
    umount2(directory, MNT_DETACH);
    await transport.kill();
    await Promise.all(clients.map((client) => client.kill()));
    await cleanup();
  });
  return { directory, transport, client: newClient(), newClient };
}

let first: Promise<Mounted> | undefined;
/** One mount for all tests that leave it usable: each takes a second to make. */
function shared(): Promise<Mounted> {
  first ??= mounted(t);
  return first;
}

/** The shared mount, with its initial content and nothing open. */
async function restored(): Promise<Mounted> {
  const all = await shared();
  await all.client.do('closeAll');
  for (const file of ['xvda', 'xvdc']) {
    const fd = await all.client.do('open', file, O_RDWR);
    await all.client.do('pwrite', fd, content().toString('hex'), 0);
    await all.client.do('close', fd);
  }
  return all;
}

const hex = (text: string): string => Buffer.from(text).toString('hex');
const ATTACHED_NS = `${OWNER.sinceMs}000000`;

t.test('stat, list and statfs show the files that are served', { skip }, async (t) => {
  const { client } = await shared();
  const times = { atimeNs: ATTACHED_NS, mtimeNs: ATTACHED_NS, ctimeNs: ATTACHED_NS };
  const blocks = Math.ceil(DISK_BYTES / 4096) * 8;
  const file = { size: DISK_BYTES, mode: 0o100600, nlink: 1, uid: 0, gid: 0, blksize: 4096, ...times };
  t.strictSame(await client.do('stat', 'xvda'), { ...file, ino: MEMORY, blocks });
  t.strictSame(await client.do('stat', 'xvdc'), { ...file, ino: PLAIN, blocks: Math.ceil(DISK_BYTES / 512) });
  const root = await client.do('stat', '.');
  t.strictSame([root.ino, root.mode, root.nlink, root.mtimeNs], [1, 0o040755, 7, ATTACHED_NS]);
  t.strictSame(await client.do('list'), [
    ['by-label', false],
    ['by-partlabel', false],
    ['by-partuuid', false],
    ['by-slot', false],
    ['by-uuid', false],
    ['xvda', true],
    ['xvdb', true],
    ['xvdc', true],
  ]);
  t.equal(await client.do('statfs'), 4096);
  t.equal(await client.errno('stat', 'xvdz'), ENOENT);
});

for (const node of [MEMORY, PLAIN] as const) {
  const file = NAMES[node];
  const served = node === MEMORY ? 'a window' : 'a disk that is no window';

  t.test(`${served}: reads and writes`, { skip }, async (t) => {
    const { client } = await restored();
    const fd = await client.do('open', file, O_RDWR);
    const expected = content();
    t.equal(await client.do('pread', fd, DISK_BYTES + 9999, 0), expected.toString('hex'), 'all of it');
    t.equal(await client.do('pwrite', fd, hex('hello'), 4094), 5);
    expected.write('hello', 4094);
    t.equal(await client.do('pread', fd, 9, 4092), expected.toString('hex', 4092, 4101));
    t.equal(await client.do('pread', fd, 4096, DISK_BYTES - 3), expected.toString('hex', DISK_BYTES - 3));
    for (const offset of [DISK_BYTES, DISK_BYTES + 1, '9007199254740994', '9223372036854771712']) {
      t.equal(await client.do('pread', fd, 512, offset), '', `read at ${offset}`);
    }
    t.equal(await client.do('pwrite', fd, hex('tail!'), DISK_BYTES - 2), 2, 'shortened at the end');
    t.equal(await client.errno('pwrite', fd, hex('x'), DISK_BYTES), ENOSPC);
    t.equal((await client.do('fstat', fd)).size, DISK_BYTES, 'the size is as it was');
    const direct = await client.do('open', file, O_RDWR | O_DIRECT);
    t.equal(await client.do('pread', direct, 13, 4095), expected.toString('hex', 4095, 4108), 'O_DIRECT, unaligned');
    const durable = await client.do('open', file, O_RDWR | O_DSYNC);
    t.equal(await client.do('pwrite', durable, hex('!'), 0), 1, 'O_DSYNC');
    await client.do('fsync', fd);
    await client.do('fdatasync', fd);
    for (const one of [fd, direct, durable]) await client.do('close', one);
  });

  t.test(`${served}: fallocate and lseek`, { skip }, async (t) => {
    const { client } = await restored();
    const fd = await client.do('open', file, O_RDWR);
    const canReserve = node === MEMORY;
    for (const mode of [0, 1]) {
      t.equal(await client.errno('fallocate', fd, mode, 0, 4096), canReserve ? 0 : EOPNOTSUPP, `mode ${mode}`);
      t.equal(await client.errno('fallocate', fd, mode, DISK_BYTES - 1, 2), ENOSPC, `mode ${mode} beyond the end`);
    }
    const expected = content();
    for (const [mode, at] of [
      [0x03, 4096],
      [0x10, 20_480],
      [0x11, 40_960],
    ] as const) {
      await client.do('fallocate', fd, mode, at, 8192);
      expected.fill(0, at, at + 8192);
    }
    await client.do('fallocate', fd, 3, DISK_BYTES - 5, 100_000);
    expected.fill(0, DISK_BYTES - 5);
    t.equal(await client.do('pread', fd, DISK_BYTES, 0), expected.toString('hex'));
    t.equal(await client.errno('fallocate', fd, 0x08, 0, 4096), EOPNOTSUPP, 'COLLAPSE_RANGE');
    t.equal((await client.do('fstat', fd)).size, DISK_BYTES);
    t.equal(await client.do('lseek', fd, 10, SEEK_DATA), 10);
    t.equal(await client.do('lseek', fd, 10, SEEK_HOLE), node === MEMORY ? 4096 : DISK_BYTES);
    t.equal(await client.do('lseek', fd, 5000, SEEK_DATA), node === MEMORY ? 12_288 : 5000);
    t.equal(await client.errno('lseek', fd, DISK_BYTES, SEEK_DATA), ENXIO);
    t.equal(await client.do('lseek', fd, 0, 2), DISK_BYTES, 'SEEK_END');
  });

  t.test(`${served}: a failed flush reaches every open handle once`, { skip }, async (t) => {
    const { client, transport } = await restored();
    const [one, two] = [await client.do('open', file, O_RDWR), await client.do('open', file, O_RDWR)];
    await client.do('fsync', one);
    await transport.ask({ do: 'fail a flush', nodeId: node });
    const late = await client.do('open', file, O_RDWR);
    t.equal(await client.errno('fsync', one), EIO);
    t.equal(await client.errno('fsync', one), 0);
    t.equal(await client.errno('fdatasync', two), EIO);
    t.equal(await client.errno('fsync', two), 0);
    t.equal(await client.errno('fsync', late), 0);
  });

  t.test(`${served}: I/O of a paused file waits without an error, then goes on`, { skip }, async (t) => {
    const { client, newClient, transport } = await restored();
    const fd = await client.do('open', file, O_RDWR);
    await transport.ask({ do: 'pause', nodeId: node });
    let isWritten = false;
    const writing = client.do('pwrite', fd, hex('XYZ'), 0).then((n) => {
      isWritten = true;
      return n;
    });
    const other = newClient();
    t.equal((await other.do('stat', file)).size, DISK_BYTES, 'attributes are not I/O');
    await delay(100);
    t.equal(isWritten, false);
    await transport.ask({ do: 'resume', nodeId: node });
    t.equal(await writing, 3);
    t.equal(await client.do('pread', fd, 4, 0), hex('XYZd'));
  });
}

t.test('the size of a disk cannot be changed', { skip }, async (t) => {
  const { client } = await restored();
  const fd = await client.do('open', 'xvda', O_RDWR);
  const truncating = await client.do('open', 'xvda', O_RDWR | O_TRUNC);
  t.equal(await client.do('pread', truncating, DISK_BYTES, 0), content().toString('hex'), 'O_TRUNC is ignored');
  for (const size of [1, DISK_BYTES - 1, DISK_BYTES + 1]) {
    t.equal(await client.errno('ftruncate', fd, size), EPERM, `ftruncate ${size}`);
    t.equal(await client.errno('truncate', 'xvda', size), EPERM, `truncate ${size}`);
  }
  t.equal(await client.errno('ftruncate', fd, 0), 0, 'emptying it is ignored');
  t.equal(await client.errno('ftruncate', fd, DISK_BYTES), 0, 'the size it has');
  t.equal(await client.do('pread', fd, DISK_BYTES, 0), content().toString('hex'), 'nothing was lost');
  t.equal(await client.do('deviceSize', fd), DISK_BYTES, 'BLKGETSIZE64');
  t.equal(await client.errno('ioctl', fd, 0x1268), ENOTTY, 'BLKSSZGET');
});

t.test('a read-only vbd refuses every open for writing, also by root', { skip }, async (t) => {
  const { client } = await restored();
  for (const flags of [O_RDWR, constants.O_WRONLY, O_RDONLY | O_TRUNC]) {
    t.equal(await client.errno('open', 'xvdb', flags), EROFS, `flags ${flags}`);
  }
  const fd = await client.do('open', 'xvdb', O_RDONLY);
  t.equal(await client.do('pread', fd, 7, 0), hex('abcdefg'));
  await client.do('fsync', fd);
});

t.test('the directory cannot be changed', { skip }, async (t) => {
  const { client } = await restored();
  for (const [what, errno] of [
    ['create', await client.errno('create', 'new')],
    ['mkdir', await client.errno('mkdir', 'new')],
    ['unlink', await client.errno('unlink', 'xvda')],
    ['rename', await client.errno('rename', 'xvda', 'new')],
    ['link', await client.errno('link', 'xvda', 'new')],
    ['symlink', await client.errno('symlink', 'xvda', 'new')],
    ['chmod', await client.errno('chmod', '.', 0o777)],
  ] as const) {
    t.equal(errno, EPERM, what);
  }
  await client.do('syncDirectory');
});

t.test('mode, owner and times are kept; a later write moves mtime to now', { skip }, async (t) => {
  const { client } = await restored();
  await client.do('chmod', 'xvda', 0o640);
  await client.do('chown', 'xvda', 12, 34);
  await client.do('utimes', 'xvda', 1000, 2000.5);
  const set = await client.do('stat', 'xvda');
  t.strictSame([set.mode, set.uid, set.gid], [0o100640, 12, 34]);
  t.strictSame([set.atimeNs, set.mtimeNs], ['1000000000000', '2000500000000']);
  const recent = (ns: string) => Math.abs(Date.now() - Number(ns) / 1e6) < 10_000;
  t.ok(recent(set.ctimeNs), 'ctime is now');
  await client.do('run', 'touch', '-c', '-m', '-d', '@-86400.5', 'xvda');
  t.equal((await client.do('stat', 'xvda')).mtimeNs, '-86400500000000', 'before the epoch');
  const fd = await client.do('open', 'xvda', O_RDWR);
  await client.do('pwrite', fd, '00', 0);
  const written = await client.do('stat', 'xvda');
  t.ok(recent(written.mtimeNs), 'mtime is now');
  t.equal(written.atimeNs, '1000000000000');
});

t.test('handles are recorded while they are open', { skip }, async (t) => {
  const { client, newClient, transport } = await restored();
  const count = async () => Number(await transport.ask({ do: 'count handles', nodeId: MEMORY }));
  await delay(100);
  const before = await count();
  const fd = await client.do('open', 'xvda', O_RDWR);
  const other = newClient();
  await other.do('open', 'xvda', O_RDONLY);
  t.equal(await count(), before + 2);
  await client.do('close', fd);
  await eventually('one was closed', 5_000, async () => (await count()) === before + 1);
  await other.kill();
  await eventually('the other’s owner was killed', 5_000, async () => (await count()) === before);
});

t.test('forgotten is reported when the last user has gone, not before', { skip }, async (t) => {
  const { client, newClient, transport } = await mounted(t);
  const fd = await client.do('open', 'xvda', O_RDWR);
  t.equal(await transport.ask({ do: 'hide', nodeId: MEMORY }), true, 'it may be in use');
  const looker = newClient();
  t.equal(await looker.errno('stat', 'xvda'), ENOENT, 'hidden');
  t.equal(await client.do('pread', fd, 7, 0), hex('abcdefg'), 'still served');
  await delay(100);
  t.notOk(transport.forgotten.includes(MEMORY), 'in use by the open file');
  await client.do('close', fd);
  await looker.errno('stat', 'xvda');
  await eventually('forgotten', 5_000, () => transport.forgotten.includes(MEMORY));
  await transport.ask({ do: 'show', nodeId: MEMORY });
  t.equal((await looker.do('stat', 'xvda')).size, DISK_BYTES, 'shown again');
});

t.test('a file that nobody ever looked up is certainly not in use', { skip }, async (t) => {
  const { transport } = await mounted(t);
  t.equal(await transport.ask({ do: 'hide', nodeId: PLAIN }), false);
});

t.test('a program that is run from a vbd is read through it', { skip }, async (t) => {
  const { client } = await restored();
  const fd = await client.do('open', 'xvda', O_RDWR);
  await client.do('chmod', 'xvda', 0o700);
  // a whole program, mapped privately by the kernel
  const program = readFileSync('/bin/true');
  t.ok(program.length < DISK_BYTES);
  await client.do('pwrite', fd, program.toString('hex'), 0);
  await client.do('close', fd);
  t.equal(await client.errno('run', './xvda'), 0);
});

t.test('the transport reports that the mount was removed', { skip }, async (t) => {
  const { directory, client, transport } = await mounted(t);
  t.equal((await client.do('stat', 'xvda')).size, DISK_BYTES);
  t.equal(transport.isGone(), false);
  await client.kill();
  t.equal(umount2(directory, 0), 0);
  await eventually('gone', 5_000, transport.isGone);
});

t.test('two clients write at once, each sees its own and the other’s', { skip }, async (t) => {
  const { client, newClient } = await restored();
  const other = newClient();
  const [a, b] = [await client.do('open', 'xvda', O_RDWR), await other.do('open', 'xvda', O_RDWR)];
  for (let round = 0; round < 50; round++) {
    const [left, right] = [`${round}`.padStart(4096, 'l'), `${round}`.padStart(4096, 'r')].map(hex) as [string, string];
    await Promise.all([client.do('pwrite', a, left, 0), other.do('pwrite', b, right, 4096)]);
    const [fromOther, fromClient] = [await other.do('pread', b, 4096, 0), await client.do('pread', a, 4096, 4096)];
    if (fromOther !== left || fromClient !== right) t.fail(`round ${round}`);
  }
  t.equal(await client.errno('lseek', a, 0, 99), EINVAL);
});

t.test('after the removal of files, handles give EIO and the names are gone', { skip }, async (t) => {
  const { client, transport } = await mounted(t);
  for (const node of [MEMORY, PLAIN] as const) {
    const file = NAMES[node];
    const fd = await client.do('open', file, O_RDWR);
    await transport.ask({ do: 'remove', nodeId: node });
    t.equal(await client.errno('pread', fd, 1, 0), EIO);
    t.equal(await client.errno('pwrite', fd, '00', 0), EIO);
    t.equal(await client.errno('fsync', fd), EIO);
    t.equal(await client.errno('fallocate', fd, 3, 0, 4096), EIO);
    t.equal(await client.errno('stat', file), ENOENT);
    t.equal(await client.errno('open', file, O_RDONLY), ENOENT);
    await client.do('close', fd);
  }
});
