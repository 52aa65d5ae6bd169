/** The foreign calls, against the real system: signatures, structs and errno are what a compiler would have checked. */
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, fstatSync, ftruncateSync, readFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { dir } from 'tmp-promise';
import {
  addressOf,
  addSeals,
  blockDeviceSize,
  copyMemory,
  E,
  errnoName,
  F_SEAL_GROW,
  F_SEAL_SEAL,
  F_SEAL_SHRINK,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocate,
  fallocateAsync,
  fdatasync,
  flockRelease,
  forgetMapped,
  fsync,
  getSeals,
  ioctl,
  isRangeLocked,
  lockRangeShared,
  lseek,
  MNT_DETACH,
  MS_NODEV,
  MS_NOSUID,
  mapFile,
  mapShared,
  memfdCreate,
  mlock,
  mount,
  populate,
  pread,
  preadNoWait,
  pwrite,
  pwriteDsync,
  read,
  receiveFd,
  SEEK_DATA,
  SEEK_HOLE,
  SystemCallError,
  socketPair,
  tryFlockExclusive,
  umount2,
  unlockRange,
  unmapFile,
  write,
} from '../../system/libc.js';
import { closeFd } from '../conformance/close-fd.js';

const isRoot = process.getuid?.() === 0;
const BAD_FD = 999_999;
const FAR = 2 ** 41 + 2 ** 32 + 3;

async function newFiles(t: Test, count = 1): Promise<FileHandle[]> {
  const holder = await dir({ unsafeCleanup: true });
  const files: FileHandle[] = [];
  for (let i = 0; i < count; i++) files.push(await open(`${holder.path}/file`, i === 0 ? 'wx+' : 'r+'));
  t.teardown(async () => {
    for (const file of files) await file.close();
    await holder.cleanup();
  });
  return files;
}

async function newFile(t: Test): Promise<number> {
  return (await newFiles(t))[0]?.fd ?? -1;
}

function newMemory(t: Test): number {
  const fd = memfdCreate('libc-test');
  t.teardown(() => closeFd(fd));
  return fd;
}

t.test('errors have a name and a number', async (t) => {
  t.equal(errnoName(E.EIO), 'EIO');
  t.match(errnoName(99_999), '99999');
  const error = new SystemCallError('mount', E.EPERM, '/mnt');
  t.match(error, {
    name: 'SystemCallError',
    errno: E.EPERM,
    code: 'EPERM',
    syscall: 'mount',
    message: 'mount /mnt: EPERM',
  });
});

t.test('hot calls answer −errno and do not throw', async (t) => {
  const bytes = Buffer.alloc(8);
  const address = addressOf(bytes);
  const calls = {
    read: () => read(BAD_FD, address, 8),
    write: () => write(BAD_FD, address, 8),
    pread: () => pread(BAD_FD, address, 8, 0),
    pwrite: () => pwrite(BAD_FD, address, 8, 0),
    preadNoWait: () => preadNoWait(BAD_FD, address, 8, 0),
    pwriteDsync: () => pwriteDsync(BAD_FD, address, 8, 0),
    fsync: () => fsync(BAD_FD),
    fdatasync: () => fdatasync(BAD_FD),
    fallocate: () => fallocate(BAD_FD, 0, 0, 8),
    lseek: () => lseek(BAD_FD, 0, SEEK_DATA),
  };
  for (const [name, call] of Object.entries(calls)) t.equal(call(), -E.EBADF, name);
});

t.test('an address is where the view begins, small and pooled ones too', async (t) => {
  const fd = await newFile(t);
  const backing = Buffer.from('0123456789abcdef');
  const views = [
    backing.subarray(10),
    new Uint8Array([97, 98, 99]),
    Buffer.from('pooled'),
    new DataView(new ArrayBuffer(5)),
  ];
  for (const view of views) {
    const expected = Buffer.from(view.buffer, view.byteOffset, view.byteLength);
    t.equal(pwrite(fd, addressOf(view), view.byteLength, 0), view.byteLength);
    const back = Buffer.alloc(view.byteLength);
    t.equal(pread(fd, addressOf(back), back.length, 0), back.length);
    t.same(back, expected);
  }
  t.equal(addressOf(backing.subarray(10)), addressOf(backing) + 10);
});

t.test('read and write move the position, pread and pwrite do not', async (t) => {
  const fd = await newFile(t);
  const bytes = Buffer.from('abcdef');
  t.equal(write(fd, addressOf(bytes), 6), 6);
  t.equal(pwrite(fd, addressOf(bytes), 1, 3), 1);
  t.equal(read(fd, addressOf(bytes), 6), 0, 'at the end');
  t.equal(pread(fd, addressOf(bytes), 6, 2), 4);
  t.equal(bytes.toString(), 'caefef');
});

t.test('offsets need not fit into 32 bits', async (t) => {
  const fd = newMemory(t);
  for (const put of [pwrite, pwriteDsync]) {
    const bytes = Buffer.from('far away');
    t.equal(put(fd, addressOf(bytes), 8, FAR), 8);
    bytes.fill(0);
    t.equal(pread(fd, addressOf(bytes), 8, FAR), 8);
    t.equal(bytes.toString(), 'far away');
    t.equal(fstatSync(fd).size, FAR + 8);
  }
  const page = FAR - (FAR % 4096);
  t.equal(lseek(fd, 0, SEEK_DATA), page);
  t.equal(lseek(fd, page, SEEK_HOLE), FAR + 8);
  t.equal(lseek(fd, FAR + 8, SEEK_DATA), -E.ENXIO);
  t.equal(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, FAR - 5, 100_000), 0);
  t.equal(lseek(fd, 0, SEEK_DATA), -E.ENXIO, 'punched');
  t.equal(fstatSync(fd).size, FAR + 8);
});

t.test('a write can be durable when it returns, and a read need not wait for the disk', async (t) => {
  const fd = await newFile(t);
  const bytes = Buffer.from('durable');
  t.equal(pwriteDsync(fd, addressOf(bytes), 7, 2 ** 32 + 3), 7);
  bytes.fill(0);
  const n = preadNoWait(fd, addressOf(bytes), 7, 2 ** 32 + 3);
  if (n === 7) t.equal(bytes.toString(), 'durable');
  else t.ok([-E.EAGAIN, -E.EOPNOTSUPP].includes(n), `${n}`);
  t.equal(preadNoWait(newMemory(t), addressOf(bytes), 7, 0), -E.EOPNOTSUPP, 'a memfd refuses the flag');
  t.equal(fsync(fd), 0);
  t.equal(fdatasync(fd), 0);
});

t.test('fallocateAsync works, and fails with the errno of its own call', async (t) => {
  const fd = newMemory(t);
  await fallocateAsync(fd, 0, 0, 8192);
  t.equal(fstatSync(fd).size, 8192);
  const failing = Array.from({ length: 8 }, (_, i) =>
    i % 2 ? fallocateAsync(BAD_FD, 0, 0, 1) : fallocateAsync(fd, 0x40, 0, 1),
  );
  for (const end of failing) end.catch(() => {});
  for (const [i, end] of failing.entries()) {
    await t.rejects(end, new SystemCallError('fallocate', i % 2 ? E.EBADF : E.EOPNOTSUPP));
  }
});

t.test('a memfd is sealed', async (t) => {
  const fd = newMemory(t);
  ftruncateSync(fd, 100);
  t.equal(getSeals(fd), 0);
  addSeals(fd, F_SEAL_GROW | F_SEAL_SHRINK);
  t.equal(getSeals(fd), F_SEAL_GROW | F_SEAL_SHRINK);
  t.throws(() => ftruncateSync(fd, 99), { code: 'EPERM' });
  t.equal(pwrite(fd, addressOf(Buffer.alloc(8)), 8, 100), -E.EPERM);
  t.equal(pwrite(fd, addressOf(Buffer.alloc(8)), 8, 96), -E.EPERM, 'not shortened inside a page');
  t.equal(pwrite(fd, addressOf(Buffer.alloc(4)), 4, 96), 4);
  addSeals(fd, F_SEAL_SEAL);
  t.throws(() => addSeals(fd, F_SEAL_GROW), { code: 'EPERM', syscall: 'fcntl F_ADD_SEALS' });
  t.throws(() => getSeals(BAD_FD), { code: 'EBADF' });
  t.match(readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'), /flags:\s+02[0-7]*2$/m, 'close-on-exec');
});

t.test('mapped memory is the file', async (t) => {
  const fd = newMemory(t);
  ftruncateSync(fd, 4096);
  const view = new Uint8Array(mapShared(fd, 4096));
  view.set(Buffer.from('mapped'), 10);
  const bytes = Buffer.alloc(6);
  t.equal(pread(fd, addressOf(bytes), 6, 10), 6);
  t.equal(bytes.toString(), 'mapped');
  t.equal(pwrite(fd, addressOf(Buffer.from('M')), 1, 10), 1);
  t.equal(view[10], 'M'.charCodeAt(0));
  t.throws(() => mapShared(BAD_FD, 4096), { syscall: 'mmap', code: 'EBADF' });
});

t.test('a mapped file is written by its memory, as far as it goes', async (t) => {
  const fd = newMemory(t);
  ftruncateSync(fd, 5 * 4096);
  const address = mapFile(fd, 4096, 6 * 4096);
  if (address === null) throw new Error('it is not mapped');
  t.equal(populate(address, 4 * 4096), 0);
  t.equal(fstatSync(fd).blocks, (4 * 4096) / 512, 'holes are filled');
  t.equal(populate(address, 5 * 4096), -E.EFAULT, 'and there is nothing behind the end');
  t.equal(populate(address + 1, 4096), -E.EINVAL);
  const text = Buffer.from('copied');
  copyMemory(address + 7, addressOf(text), text.length);
  forgetMapped(address, 6 * 4096);
  const bytes = Buffer.alloc(6);
  t.equal(pread(fd, addressOf(bytes), 6, 4096 + 7), 6);
  t.equal(bytes.toString(), 'copied', 'forgotten, the file still has it');
  unmapFile(address, 6 * 4096);
  t.throws(() => forgetMapped(address, 4096), { syscall: 'madvise', code: 'ENOMEM' });
  t.equal(mapFile(BAD_FD, 0, 4096), null);
  t.equal(mapFile(fd, 1, 4096), null, 'not at a page');
});

t.test('mlock', async (t) => {
  const page = Buffer.alloc(4096);
  t.equal(mlock(addressOf(page), page.length), true);
  t.equal(mlock(4096, 4096), false, 'nothing is mapped there');
});

t.test('range locks belong to the open file', async (t) => {
  const [one, other] = await newFiles(t, 2);
  if (!one || !other) throw new Error('two files were opened');
  t.equal(isRangeLocked(other.fd, 300, 3), false);
  t.equal(lockRangeShared(one.fd, 301, 1), true);
  t.equal(isRangeLocked(one.fd, 300, 3), false, 'one does not stand in its own way');
  t.equal(isRangeLocked(other.fd, 300, 3), true);
  t.equal(isRangeLocked(other.fd, 302, 10), false);
  t.equal(lockRangeShared(other.fd, 301, 1), true, 'shared');
  unlockRange(one.fd, 301, 1);
  unlockRange(other.fd, 301, 1);
  t.equal(isRangeLocked(other.fd, 300, 3), false);
  t.throws(() => lockRangeShared(BAD_FD, 0, 1), { code: 'EBADF' });
  t.throws(() => isRangeLocked(BAD_FD, 0, 1), { code: 'EBADF' });
});

t.test('flock', async (t) => {
  const [one, other] = await newFiles(t, 2);
  if (!one || !other) throw new Error('two files were opened');
  t.equal(tryFlockExclusive(one.fd), true);
  t.equal(tryFlockExclusive(other.fd), false);
  flockRelease(one.fd);
  t.equal(tryFlockExclusive(other.fd), true);
  t.throws(() => tryFlockExclusive(BAD_FD), { code: 'EBADF' });
});

t.test('mount and umount2', { skip: isRoot ? false : 'needs root' }, async (t) => {
  const holder = await dir();
  t.teardown(() => holder.cleanup());
  const flags = MS_NOSUID | MS_NODEV;
  mount({ source: 'fusetap-test', target: holder.path, fileSystemType: 'tmpfs', flags, data: 'size=1m' });
  const line = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .find((text) => text.includes(holder.path));
  t.equal(umount2(holder.path, MNT_DETACH), 0);
  t.match(line, /^fusetap-test .* tmpfs .*nosuid,nodev.*size=1024k/);
  t.equal(umount2(holder.path, 0), -E.EINVAL);
  const wrong = { source: 'x', target: holder.path, fileSystemType: 'no-such-type', flags: 0, data: '' };
  t.throws(() => mount(wrong), {
    code: 'ENODEV',
    message: `mount ${holder.path}: ENODEV`,
  });
});

t.test('ioctl', async (t) => {
  const fd = await newFile(t);
  t.equal(ioctl(fd, 0x80081272, Buffer.alloc(8)), -E.ENOTTY);
  t.throws(() => blockDeviceSize(fd), { syscall: 'ioctl BLKGETSIZE64', code: 'ENOTTY' });
});

const skipLoop = isRoot && existsSync('/dev/loop-control') ? false : 'needs root and loop devices';
t.test('the size of a block device', { skip: skipLoop }, async (t) => {
  const holder = await dir({ unsafeCleanup: true });
  const image = await open(`${holder.path}/image`, 'wx');
  await image.truncate(2 ** 33 + 512);
  await image.close();
  const path = execFileSync('losetup', ['--find', '--show', `${holder.path}/image`], { encoding: 'utf8' }).trim();
  const device = await open(path, 'r');
  t.teardown(async () => {
    await device.close();
    execFileSync('losetup', ['--detach', path]);
    await holder.cleanup();
  });
  t.equal(blockDeviceSize(device.fd), 2 ** 33 + 512);
});

t.test('a descriptor that does not come', async (t) => {
  const [ours, theirs] = socketPair();
  t.teardown(() => closeSync(ours));
  const received = receiveFd(ours);
  closeSync(theirs);
  t.equal(await received, null, 'the other end is closed');
});
