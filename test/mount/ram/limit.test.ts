import t from 'tap';
import { cgroupLimits, parseMeminfo, ramLimitBytes } from '../../../mount/ram/limit.js';

const GIB = 2 ** 30;

/** /proc and /sys as files of a given content. */
function files(contents: Record<string, string>): (path: string) => string | null {
  return (path) => contents[path] ?? null;
}

const meminfo = (total: number, available: number): string =>
  `MemTotal:       ${total / 1024} kB\nMemFree:  1 kB\nMemAvailable:   ${available / 1024} kB\n`;

t.test('of memory', (t) => {
  t.same(parseMeminfo(meminfo(8 * GIB, 5 * GIB)), { totalBytes: 8 * GIB, availableBytes: 5 * GIB });
  t.equal(ramLimitBytes(0, {}, files({ '/proc/meminfo': meminfo(10 * GIB, 9 * GIB) })), 8 * GIB);
  t.equal(ramLimitBytes(0, {}, files({ '/proc/meminfo': meminfo(10 * GIB, 2 * GIB) })), 2 * GIB);
  const held = ramLimitBytes(3 * GIB, {}, files({ '/proc/meminfo': meminfo(10 * GIB, 2 * GIB) }));
  t.equal(held, 5 * GIB, 'what images hold is theirs already');
  t.end();
});

t.test('chosen', (t) => {
  const read = files({ '/proc/meminfo': meminfo(10 * GIB, 9 * GIB) });
  t.equal(ramLimitBytes(0, { FUSETAP_RAM_LIMIT: '100M' }, read), 100 * 2 ** 20);
  t.equal(ramLimitBytes(0, { FUSETAP_RAM_LIMIT: '0' }, read), 0);
  t.equal(ramLimitBytes(0, { FUSETAP_RAM_LIMIT: '' }, read), 8 * GIB);
  t.throws(() => ramLimitBytes(0, { FUSETAP_RAM_LIMIT: 'much' }, read), {
    code: 'USAGE',
    message: "FUSETAP_RAM_LIMIT: 'much' is not a size",
  });
  t.end();
});

t.test('of cgroups, version 2', (t) => {
  const read = files({
    '/proc/self/mountinfo': '30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n',
    '/proc/self/cgroup': '0::/user.slice/my.service\n',
    '/sys/fs/cgroup/user.slice/my.service/memory.max': 'max\n',
    '/sys/fs/cgroup/user.slice/memory.max': `${2 * GIB}\n`,
  });
  t.same(cgroupLimits(read), [2 * GIB]);
  const withMemory = (path: string): string | null =>
    path === '/proc/meminfo' ? meminfo(10 * GIB, 9 * GIB) : read(path);
  t.equal(ramLimitBytes(0, {}, withMemory), Math.floor(1.6 * GIB));
  t.end();
});

t.test('of cgroups, version 1, in a container that sees its own part only', (t) => {
  const mount = '30 20 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n';
  const read = files({
    '/proc/self/mountinfo': mount,
    '/proc/self/cgroup': '5:cpu,cpuacct:/docker/abc\n4:memory:/docker/abc/inner\n',
    '/sys/fs/cgroup/memory/inner/memory.limit_in_bytes': '9223372036854775807\n',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes': `${GIB}\n`,
  });
  t.same(cgroupLimits(read), [2 ** 63, GIB]);
  t.end();
});

t.test('none', (t) => {
  t.same(cgroupLimits(files({})), []);
  t.end();
});
