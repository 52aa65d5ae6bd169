/**
 * A disk whose earlier server has died: what the next one does with the memory and the socket that the keeper has kept.
 * The dead server is played by this process, so its memory is exactly what a test wants.
 */
import { fstatSync, mkdtempSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { Drain } from '../../../drivers/nbd/drain.js';
import { Operation } from '../../../drivers/nbd/operation.js';
import { COMMAND } from '../../../drivers/nbd/protocol.js';
import { Doubts, monotonicMs, type Repeatable } from '../../../drivers/nbd/takeover/doubts.js';
import { KeptState, MOST_DOUBTS, SLOT, type SlotState } from '../../../drivers/nbd/takeover/kept-state.js';
import { type Reaped, reap } from '../../../drivers/nbd/takeover/reap.js';
import { addressOf, endSending, memfdCreate, setSocketOption, write } from '../../../system/libc.js';
import { eventually } from '../../e2e/command.js';
import { chunk, type FakeOptions, FakeServer, NEWSTYLE, simple } from './fake-server.js';
import { oldConnection, openNbd, type RecordingHost, recordingHost } from './open.js';
import { nbdkit, uriOf, whyNoServers } from './servers.js';

t.setTimeout(120_000);

const SIZE = 1 << 16;
/** flags, flush, FUA, zeroes, more than one connection */
const MULTI_CONN = 0x14d;

interface Stage {
  readonly fake: FakeServer;
  readonly uri: string;
  /** of the dead server */
  readonly old: Socket;
  readonly state: KeptState;
}

/**
 * A server, a connection of the dead server to it, and the memory of that.
 * @param place of the server; default: a unix socket
 */
async function staged(
  t: Test,
  options: Partial<FakeOptions> = {},
  place: string | number = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's'),
): Promise<Stage> {
  const fake = await FakeServer.start(t, place, { bytes: Buffer.alloc(SIZE), flags: MULTI_CONN, ...options });
  const old = typeof place === 'string' ? connect(place) : connect(fake.port, '127.0.0.1');
  // what comes is for the next server
  old.pause();
  await new Promise((resolve) => old.once('connect', resolve));
  // flags of the client, then GO
  const hello = Buffer.alloc(20);
  hello.writeBigUInt64BE(NEWSTYLE, 4);
  hello.writeUInt32BE(7, 12);
  await new Promise((resolve) => old.write(hello, resolve));
  old.on('error', () => {});
  t.teardown(() => old.destroy());
  const uri = typeof place === 'string' ? uriOf(place) : `nbd://127.0.0.1:${fake.port}`;
  return { fake, uri, old, state: KeptState.create() };
}

function fdOf(socket: Socket): number {
  return (socket as unknown as { _handle: { fd: number } })._handle.fd;
}

/** The next server of the disk. */
async function takenOver(
  t: Test,
  { uri, old, fake, state }: Stage,
  {
    stateFd = state.fd,
    options = {},
    minimumBytes = 1,
  }: { readonly stateFd?: number; readonly options?: Record<string, string>; readonly minimumBytes?: number } = {},
): Promise<{ disk: Disk; host: RecordingHost }> {
  const host = recordingHost();
  const { flags = 0x4d, bytes } = fake.options;
  const facts = { size: bytes.length, flags, minimumBytes, maximumBytes: 32 << 20, hasExtents: false };
  const raw = await openNbd(uri, { options, host, kept: { facts, fds: [stateFd, fdOf(old)] } });
  const disk = frontDisk(raw, { readOnly: false });
  t.teardown(() => disk.close());
  return { disk, host };
}

t.test('memory that no server has made is not written; what may be in flight is in doubt', async (t) => {
  const path = join(mkdtempSync(join(tmpdir(), 'nbd-')), 'file');
  writeFileSync(path, Buffer.alloc(1 << 20, 'x'));
  const otherVersion = KeptState.create();
  otherVersion.received.fill(0xff);
  new Int32Array(otherVersion.buffer.buffer, 0, 2)[1] = 99;
  const cases: Record<string, number> = {
    'a file': openSync(path, 'r+'),
    'a memory that is too short': memfdCreate('short'),
    'a descriptor that is not open': 1 << 20,
    'another version': otherVersion.fd,
  };
  for (const [what, stateFd] of Object.entries(cases)) {
    const stage = await staged(t);
    const { disk, host } = await takenOver(t, stage, { stateFd, options: { doubt: '0.3' } });
    const begun = performance.now();
    await disk.write(Buffer.from('new'), 512);
    t.ok(performance.now() - begun >= 290, `${what}: a write waits`);
    t.equal(host.losses.length, 1, 'unflushed writes may be lost');
    await disk.flush();
    t.not(host.kept[0]?.fds[0], stateFd, 'the next server gets another memory');
  }
  t.ok(readFileSync(path).equals(Buffer.alloc(1 << 20, 'x')), 'the file is as it was');
});

/** The dead server was sending a write: it is not known whether the NBD server has it. */
function slot(state: KeptState, offset: number, length: number, asked = { offset, length }): number {
  const index = state.take({ high: 0x01020304, low: state.slots().length + 1, offset, length, asked });
  state.set(index, SLOT.handing);
  return index;
}

function range(offset: number, length: number): Repeatable {
  return { offset, length, asked: { offset, length } };
}

/** Fails if a write to that range is answered within that time. */
async function waits(t: Test, disk: Disk, offset: number, leastMs: number): Promise<void> {
  const begun = performance.now();
  await disk.write(Buffer.from('new'), offset);
  const tookMs = Math.round(performance.now() - begun);
  t.ok(tookMs >= leastMs, `a write waits, ${tookMs} ms`);
}

t.test('a server that answers only later may be another one: unflushed writes may be lost', async (t) => {
  const stage = await staged(t);
  const { fake, state } = stage;
  state.noteWrite();
  const { disk, host } = await takenOver(t, stage);
  const right = fake.options;
  fake.options = { ...right, cutAfter: 3 };
  const reading = disk.read(Buffer.alloc(4), 0);
  await eventually('the first attempt has failed', 30_000, async () => host.states.length > 0);
  fake.options = right;
  await reading;
  t.match(host.losses, [/may be lost: the NBD server cannot be reached/]);
});

t.test('a takeover whose server answers at once loses nothing', async (t) => {
  const stage = await staged(t);
  stage.state.noteWrite();
  const { disk, host } = await takenOver(t, stage);
  await disk.read(Buffer.alloc(4), 0);
  t.same(host.losses, []);
  t.ok(stage.state.isUnflushed, 'the next flush is asked for');
  await disk.flush();
  t.notOk(stage.state.isUnflushed);
});

t.test('what an earlier server was doubtful of, the next one is, too', async (t) => {
  const stage = await staged(t);
  const { state } = stage;
  new Doubts(state.doubts).add(range(512, 512), monotonicMs() + 3000);
  slot(state, 8192, 512);
  const { disk } = await takenOver(t, stage, { options: { doubt: '20' } });
  await waits(t, disk, 600, 2500);
  // and it notes its own
  const next = new Doubts(state.doubts);
  next.load();
  const write = (offset: number): Operation => new Operation({ command: COMMAND.write, offset, length: 3 });
  t.ok(next.waitMs(write(8200)) > 10_000);
  t.equal(next.waitMs(write(600)), 0);
});

t.test('a port that refuses proves nothing', async (t) => {
  const stage = await staged(t, {}, 0);
  const { fake, state } = stage;
  slot(state, 512, 512);
  const { disk, host } = await takenOver(t, stage, { options: { doubt: '3' } });
  fake.stop();
  const waiting = waits(t, disk, 600, 2800);
  await eventually('the first attempt has failed', 30_000, async () => host.states.length > 0);
  t.match(host.states, [{ reason: /ECONNREFUSED/ }]);
  await fake.listen();
  await waiting;
});

t.test('a unix socket where nobody listens proves the end', { skip: whyNoServers() }, async (t) => {
  const socket = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's');
  const server = nbdkit(socket, ['memory', String(SIZE)]);
  t.teardown(() => server.kill());
  await server.start();
  const stage = await staged(t);
  const old = connect(socket);
  old.pause();
  await new Promise((resolve) => old.once('connect', resolve));
  old.on('error', () => {});
  slot(stage.state, 512, 512);
  await server.kill();
  const options = { doubt: '3600' };
  const { disk, host } = await takenOver(t, { ...stage, old, uri: uriOf(socket) }, { options });
  const waiting = disk.write(Buffer.from('new'), 600);
  await eventually('the first attempt has failed', 30_000, async () => host.states.length > 0);
  await server.start();
  await waiting;
  t.pass('the write does not wait');
});

t.test('ranges in doubt: more than there is room for become one', async (t) => {
  const state = KeptState.create();
  const doubts = new Doubts(state.doubts);
  const count = MOST_DOUBTS + 100;
  for (let i = 0; i < count; i++) doubts.add(range(i * 1024, 512), monotonicMs() + 60_000);
  const next = new Doubts(state.doubts);
  next.load();
  for (const each of [doubts, next]) {
    for (let i = 0; i < count; i++) {
      const write = new Operation({ command: COMMAND.write, offset: i * 1024 + 1, length: 10 });
      if (each.waitMs(write) === 0) t.fail(`range ${i} is forgotten`);
    }
  }
  const same = new Operation({ command: COMMAND.write, offset: 1024, length: 512 });
  t.equal(next.waitMs(same), 0, 'the same request passes');
  t.ok(next.waitMs(same) > 0, 'once');
  next.clear();
  doubts.load();
  t.equal(doubts.waitMs(same), 0);
});

const FLUSH = 3;
const HANDSHAKE_BYTES = 18 + 20 + 12 + 20;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;

for (const [title, flags, { isTorn = false, error = 0 }, flushedOn, losses] of [
  ['no other connection can flush it', 0x4d, {}, [1], []],
  ['every connection can flush it', MULTI_CONN, {}, [2], []],
  ['the flush fails', 0x4d, { error: 5 }, [1], [/could not be flushed/]],
  ['the dead server has sent a part of a request', 0x4d, { isTorn: true }, [], [/could not be flushed/]],
] as const) {
  t.test(`writes of the old connection: ${title}`, async (t) => {
    const answer: FakeOptions['answer'] = ({ command, connection, cookie }, send) => {
      if (error === 0 || command !== FLUSH || connection !== 1) return false;
      send(simple(cookie, error));
      return true;
    };
    const stage = await staged(t, { flags, answer });
    const { state, fake } = stage;
    state.noteWrite();
    state.isTorn = isTorn;
    const { disk, host } = await takenOver(t, stage);
    await disk.read(Buffer.alloc(4), 0);
    await disk.flush();
    t.same(
      fake.requests.flatMap(({ command, connection }) => (command === FLUSH ? [connection] : [])),
      flushedOn,
      'the connections that flush',
    );
    t.match(host.losses, losses);
    t.equal(host.losses.length, losses.length);
    t.notOk(state.isUnflushed, 'what is not durable was told');
  });
}

for (const [title, place, isNoted, losses] of [
  ['by a server of the bus that died then', undefined, true, []],
  ['by that server, and over TCP nobody knows who is at the other end now', 0, true, [/ended the connection/]],
  ['by the NBD server', undefined, false, [/ended the connection/]],
] as const) {
  t.test(`an old connection that was ended ${title}`, async (t) => {
    const stage = await staged(t, {}, place);
    const { state, old } = stage;
    state.noteWrite();
    // the dead server has read what the NBD server said at first: the greeting, and two replies
    old.on('data', () => {}).resume();
    await eventually('the handshake', 30_000, async () => old.bytesRead >= HANDSHAKE_BYTES);
    // pause() would go on reading, and meet the end
    (old as unknown as { _handle: { readStop(): void } })._handle.readStop();
    if (isNoted) state.endedSocket = fstatSync(fdOf(old)).ino;
    endSending(fdOf(old));
    stage.fake.dropAll();
    const { disk, host } = await takenOver(t, stage);
    await disk.flush();
    t.match(host.losses, losses);
    t.equal(host.losses.length, losses.length, host.losses.join());
  });
}

t.test('another process listens than at the old connection', { skip: whyNoServers() }, async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'nbd-'));
  const image = join(directory, 'disk.img');
  writeFileSync(image, Buffer.alloc(SIZE));
  const socket = join(directory, 's');
  const servers = [1, 2].map(() => nbdkit(socket, ['file', image]));
  for (const [i, server] of servers.entries()) {
    t.teardown(() => server.kill());
    if (i > 0) break;
    await server.start();
  }
  const old = connect(socket);
  old.pause();
  old.on('error', () => {});
  t.teardown(() => old.destroy());
  await new Promise((resolve) => old.once('connect', resolve));
  const state = KeptState.create();
  state.noteWrite();
  // a server of the bus has ended it, and has died; then the NBD server is started anew
  state.endedSocket = fstatSync(fdOf(old)).ino;
  endSending(fdOf(old));
  await servers[0]?.kill();
  await servers[1]?.start();
  const facts = { size: SIZE, flags: MULTI_CONN, minimumBytes: 1, maximumBytes: 32 << 20, hasExtents: false };
  const host = recordingHost();
  const raw = await openNbd(uriOf(socket), { host, kept: { facts, fds: [state.fd, fdOf(old)] } });
  const disk = frontDisk(raw, { readOnly: false });
  t.teardown(() => disk.close());
  await disk.flush();
  t.match(host.losses, [/another process is the NBD server now/]);
});

t.test('writes of the old connection are flushed, although its socket is full', async (t) => {
  const stage = await staged(t, { flags: 0x4d });
  const { state, fake, old } = stage;
  // the server has answered a read, and then stops; the dead server has filled the socket with others
  const request = Buffer.alloc(28);
  request.writeUInt32BE(0x25609513, 0);
  request.writeUInt32BE(1, 24);
  old.write(request);
  await eventually('the server has read it', 30_000, async () => fake.requests.length === 1);
  fake.pause(true);
  const many = Buffer.concat(Array.from({ length: 1000 }, () => request));
  const bytes = addressOf(many);
  while (write(fdOf(old), bytes, many.length) === many.length);
  state.noteWrite();
  const { disk, host } = await takenOver(t, stage);
  const reading = disk.read(Buffer.alloc(4), 0);
  await eventually('it waits', 30_000, async () => host.states.length > 0);
  fake.pause(false);
  await reading;
  t.same(host.losses, []);
  t.notOk(state.isUnflushed);
});

t.test('large blocks: a write to another sector of a doubtful block waits, the same write does not', async (t) => {
  const stage = await staged(t);
  // the dead server was writing a block for its first sector
  slot(stage.state, 4096, 4096, { offset: 4096, length: 512 });
  const { disk } = await takenOver(t, stage, { options: { doubt: '3' }, minimumBytes: 4096 });
  const begun = performance.now();
  await disk.write(Buffer.alloc(512, 'b'), 4096 + 512);
  const tookMs = Math.round(performance.now() - begun);
  t.ok(tookMs >= 2800, `the other one waits, ${tookMs} ms`);

  const again = await staged(t);
  slot(again.state, 4096, 4096, { offset: 4096, length: 512 });
  const { disk: next } = await takenOver(t, again, { options: { doubt: '3600' }, minimumBytes: 4096 });
  await next.write(Buffer.alloc(512, 'a'), 4096);
  t.equal(again.fake.options.bytes.toString('latin1', 4095, 4098), '\0aa', 'the same write is done at once');
});

/** What a reply to a write begins with, until its cookie ends. */
function replyTo(low: number, isChunk: boolean): Buffer {
  const cookie = Buffer.alloc(8);
  cookie.writeUInt32BE(0x01020304, 0);
  cookie.writeUInt32BE(low, 4);
  return isChunk ? chunk(cookie, 0, Buffer.alloc(0)) : simple(cookie, 0);
}

/** Reaps a connection whose dead server had received some bytes and not looked at them; the others come later. */
async function reaped(t: Test, received: Buffer, later: readonly Buffer[]): Promise<Reaped> {
  const state = KeptState.create();
  state.set(state.take({ high: 0x01020304, low: 0x80808082, ...range(0, 512) }), SLOT.sent);
  received.copy(state.buffer);
  const { ours, far } = oldConnection(t);
  far.resume();
  const wish = { isReadable: true, flushes: false, signal: AbortSignal.timeout(20_000), drain: new Drain() };
  const reaping = reap(ours, state, wish);
  for (const bytes of later) await new Promise((resolve) => far.write(bytes, resolve));
  // nothing else comes: the end of the stream ends the wait
  if (later.length === 0) far.end();
  return await reaping;
}

for (const isChunk of [false, true]) {
  t.test(`an answer that was cut where the old server had read to, ${isChunk ? 'structured' : 'simple'}`, async (t) => {
    const mine = replyTo(0x80808082, isChunk);
    const other = replyTo(0x80808081, isChunk);
    for (let cut = 0; cut <= mine.length; cut++) {
      const before = Buffer.concat([other, mine.subarray(0, cut)]);
      const { doubtful, endedBy } = await reaped(
        t,
        before,
        [...mine.subarray(cut)].map((byte) => Buffer.from([byte])),
      );
      t.same([doubtful.length, endedBy], [0, cut === mine.length ? 'server' : null], `after ${cut} bytes`);
    }
  });
}

t.test(
  'an answer to another request, cut within the last bytes of its cookie, is not taken for this one',
  async (t) => {
    const other = replyTo(0x80808083, false);
    for (const cut of [12, 13, 14, 15]) {
      const { doubtful } = await reaped(t, other.subarray(0, cut), []);
      t.equal(doubtful.length, 1, 'nothing comes');
      const mine = replyTo(0x80808082, false);
      // bytes of data that look like the end of the cookie
      const state = await reaped(t, Buffer.concat([mine.subarray(0, 15), Buffer.from('x')]), []);
      t.equal(state.doubtful.length, 1, 'another byte follows');
    }
  },
);

t.test('a unix socket that is full has no part of a request, if only the old connection can flush', async (t) => {
  const socket = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's');
  const fake = await FakeServer.start(t, socket, { bytes: Buffer.alloc(4 << 20) });
  const host = recordingHost();
  const disk = frontDisk(await openNbd(uriOf(socket), { host }), { readOnly: false });
  t.teardown(() => disk.close());
  const state = KeptState.adopt(host.kept[0]?.fds[0] as number) as KeptState;
  const count = (is: SlotState): number => state.slots().filter((slot) => slot.state === is).length;
  // on most machines it has less room than what may be in flight, but not on all
  setSocketOption(host.kept.at(-1)?.fds[1] as number, { level: SOL_SOCKET, name: SO_SNDBUF, value: 128 << 10 });
  fake.pause(true);
  const data = Buffer.alloc(1 << 20, 'data');
  const writes = [0, 1, 2, 3].map((i) => disk.write(data, i << 20));
  await eventually('requests wait for room', 30_000, async () => count(SLOT.sent) > 0 && count(SLOT.queued) > 0);
  t.same([count(SLOT.torn), count(SLOT.handing), state.isTorn], [0, 0, false]);
  fake.pause(false);
  await Promise.all(writes);
  t.ok([0, 1, 2, 3].every((i) => fake.options.bytes.subarray(i << 20, (i + 1) << 20).equals(data)));
});

t.test('a server that dies when it ends the old connection has told that it was flushed', async (t) => {
  const state = KeptState.create();
  state.noteWrite();
  const { ours, far } = oldConnection(t);
  far.once('data', (request: Buffer) => {
    far.write(simple(request.subarray(8, 16), 0));
  });
  const drain = new Drain();
  let isUnflushed: boolean | undefined;
  drain.add = (destroy) => {
    isUnflushed = state.isUnflushed;
    Drain.prototype.add.call(drain, destroy);
  };
  const { endedBy } = await reap(ours, state, {
    ...{ isReadable: true, flushes: true, signal: AbortSignal.timeout(20_000), drain },
  });
  t.same([isUnflushed, endedBy], [false, null]);
});

t.test('servers that die fast wait for a torn request together, not each anew', async (t) => {
  const state = KeptState.create();
  const torn = { high: 1, low: 2, ...range(0, 512) };
  state.set(state.take(torn), SLOT.handing);
  const wish = { isReadable: true, flushes: false, drain: new Drain() };
  /** The pairs of a connection on which no answer comes. */
  const begin = (signal: AbortSignal): Promise<Reaped> => {
    const { ours } = oldConnection(t);
    return reap(ours, state, { ...wish, signal });
  };
  const died = new AbortController();
  const first = begin(died.signal);
  died.abort();
  await t.rejects(first, 'the first server dies');
  t.ok(state.waitsSinceMs > 0, 'it has told since when it waited');
  // as if that had been long ago
  state.waitsSinceMs -= 60_000;
  const begun = performance.now();
  const { doubtful } = await begin(AbortSignal.timeout(60_000));
  t.equal(doubtful.length, 1);
  t.ok(performance.now() - begun < 900, 'the next one only looks whether there is an answer');
  state.clear();
  t.equal(state.waitsSinceMs, 0, 'another connection begins anew');
});
