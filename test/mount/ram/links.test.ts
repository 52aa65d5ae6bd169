/** Links to ram images: followed where they lead to the very memory they were made for, removed where they do not. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { mkdir, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { growthWithin } from '../../../mount/ram/account.js';
import { ramLimitBytes } from '../../../mount/ram/limit.js';
import {
  cleanLinks,
  linkOf,
  linkTarget,
  listLinks,
  memfdName,
  openLink,
  type RamLink,
  residentBytes,
  writeLink,
} from '../../../mount/ram/links.js';
import { addSeals, F_SEAL_GROW, F_SEAL_SHRINK, memfdCreate } from '../../../system/libc.js';
import { isRunning, readStartTime } from '../../../system/proc.js';
import { whyNot } from '../../e2e/fixtures.js';
import { scratch } from '../host.js';

const SIZE = 10_000;

async function runtime(t: Test): Promise<string> {
  const directory = await scratch(t);
  await mkdir(join(directory, 'ram'));
  return directory;
}

function makeMemory(t: Test, { id = 'cafe', sizeBytes = SIZE, sealed = true } = {}): number {
  const fd = memfdCreate(memfdName(id));
  t.teardown(() => {
    try {
      closeSync(fd);
    } catch {
      // the test closed it
    }
  });
  ftruncateSync(fd, sizeBytes);
  if (sealed) addSeals(fd, F_SEAL_GROW | F_SEAL_SHRINK);
  return fd;
}

function linkTo(fd: number, change: Partial<RamLink> = {}): RamLink {
  const facts = { id: 'cafe', driver: 'ram', share: '8:1:5', identity: '8:1:5:0', image: '/img', sizeBytes: SIZE };
  const bytes = { reservedBytes: 0, grantedBytes: 0 };
  return { ...facts, ...bytes, state: { sizeBytes: SIZE }, filled: true, bus: '0', ...linkTarget(fd), ...change };
}

t.test('a link leads to its memory', async (t) => {
  const directory = await runtime(t);
  const link = linkTo(makeMemory(t));
  writeLink(directory, link);
  t.same(listLinks(directory), [link]);
  t.same(cleanLinks(directory), [link]);
  t.same(linkOf(directory, 'cafe'), link);
  const fd = openLink(link);
  if (fd === null) return t.fail('not opened');
  t.equal(linkTarget(fd).ino, link.ino);
  closeSync(fd);
  t.equal(residentBytes(link), 0);
});

const STALE: Record<string, (t: Test) => RamLink> = {
  'of a process that is gone': (t) => linkTo(makeMemory(t), { pid: 4_194_305, link: '/proc/4194305/fd/3' }),
  'of a process that had the pid before': (t) => linkTo(makeMemory(t), { startTime: '1' }),
  'to a descriptor that was closed': (t) => {
    const fd = makeMemory(t);
    const link = linkTo(fd);
    closeSync(fd);
    return link;
  },
  'to a descriptor that has become another file': (t) => {
    const fd = openSync('/dev/null', 'r');
    t.teardown(() => closeSync(fd));
    return linkTo(fd);
  },
  'to a memory of another name': (t) => linkTo(makeMemory(t, { id: 'f00d' })),
  'to another memory of that name': (t) => linkTo(makeMemory(t), { ino: '1' }),
};

for (const [what, make] of Object.entries(STALE)) {
  t.test(`stale: a link ${what}`, async (t) => {
    const directory = await runtime(t);
    const link = make(t);
    writeLink(directory, link);
    t.equal(openLink(link), null);
    t.same(listLinks(directory), []);
    t.equal((await readdir(join(directory, 'ram'))).length, 1, 'who only looks leaves it');
    t.same(cleanLinks(directory), []);
    t.same(await readdir(join(directory, 'ram')), [], 'who may, removes it');
  });
}

t.test('a memory that could change its size, or has another, is not opened', (t) => {
  t.equal(openLink(linkTo(makeMemory(t, { sealed: false }))), null);
  t.equal(openLink(linkTo(makeMemory(t, { sizeBytes: SIZE + 1 }))), null);
  t.end();
});

t.test('what is no link is removed', async (t) => {
  const directory = await runtime(t);
  const other = join(directory, 'ram', 'cafe.1');
  await writeFile(other, '{"id":"cafe","pid":1,"link":"/etc/passwd"}');
  await writeFile(join(directory, 'ram', 'f00d.1'), '{"id":');
  await writeFile(join(directory, 'ram', '.cafe.1.1'), '');
  t.same(cleanLinks(directory), []);
  t.same(await readdir(join(directory, 'ram')), []);
});

/** Does something while this process may open nothing more. */
function withoutDescriptors<Result>(act: () => Result): Result {
  const limit = (soft: string): Buffer => execFileSync('prlimit', ['--pid', `${process.pid}`, `--nofile=${soft}:`]);
  const words = ['--pid', `${process.pid}`, '--nofile', '--noheadings', '-o', 'SOFT'];
  const before = execFileSync('prlimit', words, { encoding: 'utf8' }).trim();
  limit('256');
  const taken: number[] = [];
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  } catch {
    return act();
  } finally {
    for (const fd of taken) closeSync(fd);
    limit(before);
  }
}

t.test(
  'what cannot be looked at for want of a descriptor is neither gone nor without a limit',
  {
    skip: whyNot('prlimit'),
  },
  async (t) => {
    const directory = await runtime(t);
    const link = linkTo(makeMemory(t));
    writeLink(directory, link);
    const began = readStartTime(process.pid) as string;
    // also what the kernel says is free changes
    const limitBytes = ramLimitBytes(0);
    const seen = withoutDescriptors(() => {
      const failed = (act: () => unknown): unknown => {
        try {
          return act();
        } catch (error) {
          return (error as NodeJS.ErrnoException).code;
        }
      };
      return {
        list: failed(() => listLinks(directory)),
        clean: failed(() => cleanLinks(directory)),
        start: failed(() => readStartTime(process.pid)),
        own: linkOf(directory, 'cafe'),
        isRunning: isRunning(process.pid, began),
        limitBytes: ramLimitBytes(0),
      };
    });
    t.match(seen, { list: 'EMFILE', clean: 'EMFILE', start: 'EMFILE', own: null, isRunning: true, limitBytes });
    t.same(listLinks(directory), [link], 'the link is still there');
  },
);

t.test('memory without a limit grows by a number', async (t) => {
  const first = linkTo(makeMemory(t));
  const image = { first, links: [first], residentBytes: 0, usedBytes: 0 };
  const account = { images: [image], limitBytes: Number.POSITIVE_INFINITY, usedBytes: 0 };
  t.equal(growthWithin(account, 'cafe', { wantedBytes: 1 << 20, neededBytes: 4096 }), 1 << 20);
});
