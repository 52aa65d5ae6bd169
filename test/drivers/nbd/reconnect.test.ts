/** Servers that take each connection and break it: they are asked again later and later, with few descriptors. */
import { mkdtempSync, readdirSync, readlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { Backoff, STEADY_MS } from '../../../drivers/nbd/backoff.js';
import { MOST_DRAINED } from '../../../drivers/nbd/drain.js';
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
