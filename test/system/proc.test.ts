import { open, stat } from 'node:fs/promises';
import fc from 'fast-check';
import t from 'tap';
import { file as tmpFile } from 'tmp-promise';
import { lockRangeShared } from '../../system/libc.js';
import {
  deviceName,
  eachProcess,
  isBelow,
  isInUserNamespace,
  listOpenFiles,
  locate,
  mapsShow,
  mayInspect,
  parseFdinfo,
  parseMountinfo,
  readCommand,
  readDeviceFamily,
  readFdinfo,
  readMaps,
  readMountNamespaces,
  readMounts,
} from '../../system/proc.js';
import { eventually } from '../e2e/command.js';

t.test('device numbers are put apart as the C library does', async (t) => {
  t.equal(deviceName(65024n), '254:0');
  t.equal(deviceName(0x7_00n), '7:0');
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0, max: 0xffffffff }), (major, minor) => {
      const [a, i] = [BigInt(major), BigInt(minor)];
      // makedev(3) of glibc
      const dev = ((a & 0xfffff000n) << 32n) | ((a & 0xfffn) << 8n) | ((i & 0xffffff00n) << 12n) | (i & 0xffn);
      return deviceName(dev) === `${major}:${minor}`;
    }),
  );
});

const MOUNTINFO = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
30 27 0:40 / /run/fusetap/bus/0 ro,nosuid,nodev,relatime shared:9 master:2 - fuse.fusetap fusetap rw,user_id=0
31 27 254:0 /home/a\\040b /mnt/with\\040space\\011tab\\134 rw - ext4 /dev/vda ro,discard
32 27 0:40 /xvda /mnt/file rw - fuse.fusetap fusetap rw
33 31 0:44 / /mnt/é rw - tmpfs none rw
34 27 0:50 / /run/fusetap rw - tmpfs none rw
`;

t.test('mountinfo: escapes, optional fields, and whether the file system or only the mount is read-only', async (t) => {
  const mounts = parseMountinfo(MOUNTINFO);
  t.equal(mounts.length, 7);
  t.match(mounts[2], { id: 30, dev: '0:40', root: '/', mountpoint: '/run/fusetap/bus/0', type: 'fuse.fusetap' });
  t.equal(mounts[2]?.readOnly, false);
  t.match(mounts[3], { mountpoint: '/mnt/with space\ttab\\', root: '/home/a b', source: '/dev/vda', readOnly: true });
  t.equal(mounts[5]?.mountpoint, '/mnt/é');
  t.same(parseMountinfo('garbage\n\n'), []);
});

t.test('a path is located by the mounts: through bind mounts of directories and of files', async (t) => {
  const mounts = parseMountinfo(MOUNTINFO);
  const at = (path: string): string => {
    const place = locate(mounts, path);
    return `${place?.dev} ${place?.path}`;
  };
  t.equal(at('/etc/passwd'), '254:0 /etc/passwd');
  t.equal(at('/'), '254:0 /');
  t.equal(at('/run/fusetap/bus/0/xvda'), '0:40 /xvda');
  t.equal(at('/run/fusetap/bus/0'), '0:40 /');
  t.equal(at('/run/fusetap/bus/01'), '0:50 /bus/01', 'a name that only begins alike');
  t.equal(at('/mnt/file'), '0:40 /xvda');
  t.equal(at('/mnt/with space\ttab\\/c'), '254:0 /home/a b/c');
  t.equal(at('/mnt/with space\ttab\\'), '254:0 /home/a b');
  t.equal(locate([], '/x'), null);
  t.ok(isBelow('/a/b', '/a') && isBelow('/a', '/a') && isBelow('/a', '/') && !isBelow('/ab', '/a'));
});

t.test('fdinfo: mount, inode and locks of every kind; fields that an old kernel lacks are null', async (t) => {
  const info = parseFdinfo(`pos:	0
flags:	0100002
mnt_id:	27
ino:	2212019
lock:	1: FLOCK  ADVISORY  WRITE 3408 fe:00:2212019 0 EOF
lock:	2: OFDLCK ADVISORY  READ -1 fe:00:2212019 301 301
lock:	3: POSIX  ADVISORY  WRITE 77 00:1f:5 100 103
`);
  const file = 'fe:00:2212019';
  t.same(info, {
    mountId: 27,
    ino: '2212019',
    isWritable: true,
    locks: [
      { kind: 'FLOCK', write: true, file, start: 0, end: Number.POSITIVE_INFINITY },
      { kind: 'OFDLCK', write: false, file, start: 301, end: 301 },
      { kind: 'POSIX', write: true, file: '00:1f:5', start: 100, end: 103 },
    ],
  });
  t.same(parseFdinfo('pos:\t0\nflags:\t0100000\nmnt_id:\t9\n'), {
    mountId: 9,
    ino: null,
    isWritable: false,
    locks: [],
  });
  for (const [flags, isWritable] of [
    ['0100001', true],
    ['02100002', true],
    ['0100000', false],
  ] as const) {
    t.match(parseFdinfo(`pos:\t0\nflags:\t${flags}\nmnt_id:\t9\n`), { isWritable }, flags);
  }
});

t.test('the kernel writes what is parsed here', async (t) => {
  const { path, cleanup } = await tmpFile();
  t.teardown(cleanup);
  const file = await open(path, 'r+');
  t.teardown(() => file.close());
  const { ino } = await file.stat({ bigint: true });
  t.ok(lockRangeShared(file.fd, 301, 1));
  t.equal(listOpenFiles('self').find(({ fd }) => fd === file.fd)?.path, path);
  const info = readFdinfo(process.pid, file.fd);
  t.match(info?.locks, [{ kind: 'OFDLCK', write: false, start: 301, end: 301 }]);
  t.ok(info?.locks[0]?.file.endsWith(`:${ino}`));
  t.ok((await readMounts('self')).some(({ id }) => id === info?.mountId));
  t.equal(readFdinfo(process.pid, 1_000_000), null);
});

t.test('processes: our own is seen, kernel threads and what is gone are not', async (t) => {
  const pids: number[] = [];
  for await (const pid of eachProcess()) pids.push(pid);
  t.ok(pids.includes(process.pid));
  t.ok(mayInspect(process.pid));
  t.equal(mayInspect(2 ** 22 + 1), false);
  const kernelThread = pids.find((pid) => readCommand(pid)?.startsWith('kworker/'));
  if (kernelThread !== undefined) t.equal(mayInspect(kernelThread), false);
  t.equal(readCommand(2 ** 22 + 1), null);
  // others mount and unmount meanwhile
  await eventually('our namespace is the first', 60_000, async () => {
    return (await readMountNamespaces())[0]?.length === (await readMounts('self')).length;
  });
});

t.test('maps show what is mapped, and only that', async (t) => {
  const { dev, ino } = await stat(process.execPath, { bigint: true });
  const maps = await readMaps(process.pid);
  t.ok(mapsShow(maps, deviceName(dev), String(ino)));
  t.notOk(mapsShow(maps, deviceName(dev), `${ino}0`));
  t.notOk(mapsShow(maps, '0:255', String(ino)));
  t.equal(await readMaps(2 ** 22 + 1), '');
  t.same(await Promise.all([readMaps(process.pid), readMaps(process.pid)]).then(([a, b]) => a === b), true);
});

t.test('a device that is not there has no family', async (t) => {
  t.same(readDeviceFamily('4000:0'), []);
});

t.test('a user namespace', async (t) => {
  t.equal(isInUserNamespace('         0          0 4294967295\n'), false);
  t.equal(isInUserNamespace('         0      65534          1\n'), true);
  t.equal(isInUserNamespace(''), false, 'a kernel without them');
});
