/** Servers that take each connection and break it: they are asked again later and later, with few descriptors. */
import { mkdtempSync, readdirSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import type { FusetapError } from '../../../drivers/errors.js';
import { MOST_DRAINED } from '../../../drivers/nbd/drain.js';
import { Backoff, STEADY_MS } from '../../../drivers/nbd/retry/backoff.js';
import { LOSSES_ALONE, LOSSES_OF_SUSPECT } from '../../../drivers/nbd/retry/suspects.js';
import { type FakeOptions, FakeServer, simple } from './fake-server.js';
import { openNbd } from './open.js';
import { uriOf } from './servers.js';

t.setTimeout(120_000);

const SIZE = 1 << 16;
type Answer = NonNullable<FakeOptions['answer']>;

async function served(t: Test, options: Partial<FakeOptions>): Promise<{ fake: FakeServer; disk: Disk }> {
  const socket = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's');
  const fake = await FakeServer.start(t, socket, { bytes: Buffer.alloc(SIZE), ...options });
  const disk = frontDisk(await openNbd(uriOf(socket)), { readOnly: false });
  t.teardown(() => disk.close());
  return { fake, disk };
}

/** A server that breaks the protocol at each read of this place, until it has seen so many. */
function poisoned(offset: number, times: number, seen: (nowMs: number) => void): Answer {
  let left = times;
  return (request, send) => {
    if (request.command !== 0 || request.offset !== offset) return false;
    seen(performance.now());
    if (left-- <= 0) return false;
    // the cookie of nobody
    send(simple(Buffer.alloc(8, 9), 0));
    return true;
  };
}

t.test('a request that breaks each connection comes again after longer and longer pauses', async (t) => {
  const times: number[] = [];
  const { disk } = await served(t, { answer: poisoned(512, 4, (nowMs) => times.push(nowMs)) });
  await Promise.all([disk.read(Buffer.alloc(4), 0), disk.read(Buffer.alloc(4), 512)]);
  const pauses = times.slice(1).map((time, i) => Math.round(time - (times[i] as number)));
  t.comment(`pauses: ${pauses.join(', ')} ms`);
  for (const [i, leastMs] of [0, 95, 195, 495].entries()) t.ok((pauses[i] as number) >= leastMs, `pause ${i + 1}`);
});

/** How many sockets this process has open. */
function openSockets(): number {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}

/** What a disk answers to a read: bytes, or the errno. */
const outcomeOf = (disk: Disk, offset: number): Promise<string> =>
  disk.read(Buffer.alloc(4), offset).then(
    () => 'bytes',
    (error: FusetapError) => `${error.errno}: ${error.message}`,
  );

/** They only wait, so they wait together. */
t.test('requests and servers that end connections', async (t) => {
  t.jobs = 3;
  void t.test('a request that ends each connection fails at last, and others do not', { buffered: true }, async (t) => {
    const { fake, disk } = await served(t, { answer: poisoned(512, 1000, () => {}) });
    const offsets = [0, 512, 1024, 1536, 2048];
    const outcomes = await Promise.all(offsets.map((offset) => outcomeOf(disk, offset)));
    t.match(outcomes, ['bytes', /^5: .*ends each connection at this request/, 'bytes', 'bytes', 'bytes']);
    t.equal(fake.connections, LOSSES_OF_SUSPECT + LOSSES_ALONE + 1);
    t.equal(await outcomeOf(disk, 0), 'bytes', 'the disk goes on');
    t.match(await outcomeOf(disk, 512), /^5: /, 'and it fails again');
  });

  void t.test('so does a write, and it is not lost silently', { buffered: true }, async (t) => {
    const answer: Answer = ({ command, offset }, send) => {
      if (command !== 1 || offset !== 512) return false;
      send(simple(Buffer.alloc(8, 9), 0));
      return true;
    };
    const { disk } = await served(t, { answer });
    const writes = [0, 512, 1024].map((offset) =>
      disk.write(Buffer.alloc(512, 'w'), offset).then(
        () => 'ok',
        (error: FusetapError) => String(error.errno),
      ),
    );
    t.same(await Promise.all(writes), ['ok', '5', 'ok']);
  });

  void t.test(
    'a server that ends again and again, whatever is asked of it, convicts no request',
    { buffered: true },
    async (t) => {
      const losses = LOSSES_OF_SUSPECT + LOSSES_ALONE;
      const answer: Answer = ({ connection }, send) => {
        if (connection > losses) return false;
        send(simple(Buffer.alloc(8, 9), 0));
        return true;
      };
      const { fake, disk } = await served(t, { answer });
      t.same(await Promise.all([0, 512, 1024].map((offset) => outcomeOf(disk, offset))), ['bytes', 'bytes', 'bytes']);
      t.equal(fake.connections, losses + 1);
    },
  );
});

t.test('old connections that the server does not close are few', async (t) => {
  const open: number[] = [];
  // each connection has a descriptor of the server, too
  const count = (): number => openSockets() - fake.connections;
  const { fake, disk } = await served(t, { isHalfOpen: true, answer: poisoned(512, 6, () => open.push(count())) });
  const others = count() - 1;
  await disk.read(Buffer.alloc(4), 512);
  t.equal(fake.connections, 7);
  t.same(
    open.map((sockets) => sockets - others),
    [1, 2, 3, 4, 5, 5, 5],
    `one, and ${MOST_DRAINED} old ones`,
  );
});

t.test('pauses begin anew only after a connection that has worked for some time', async (t) => {
  const backoff = new Backoff();
  let nowMs = 0;
  const lostAfter = (livedMs: number, answered: number): number => {
    backoff.connected(nowMs);
    nowMs += livedMs;
    backoff.lost(nowMs, answered);
    return backoff.nextPauseMs();
  };
  t.same(
    [1, 2, 3].map(() => lostAfter(10, 5)),
    [0, 100, 200],
    'short connections, although they answer',
  );
  t.equal(lostAfter(STEADY_MS, 0), 500, 'a long one without answers');
  t.equal(lostAfter(STEADY_MS, 1), 0, 'a long one that has answered');
  t.same(
    [1, 2, 3, 4, 5, 6, 7].map(() => backoff.nextPauseMs()),
    [100, 200, 500, 1000, 2000, 5000, 5000],
  );
});
