/**
 * Servers that break the protocol or go away in the middle: at the first attach one clear error, later a reconnect.
 * Never a crash, a request that hangs, or bytes outside of where they were asked for.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { FusetapError } from '../../../drivers/errors.js';
import { Filled } from '../../../drivers/nbd/filled.js';
import { patternBytes } from '../../conformance/pattern.js';
import { eventually } from '../../e2e/command.js';
import { chunk, type FakeOptions, type FakeRequest, FakeServer, simple } from './fake-server.js';
import { type OpenWish, openNbd, recordingHost } from './open.js';
import { uriOf } from './servers.js';

t.setTimeout(300_000);

const SIZE = 1 << 16;

async function served(t: Test, options: Partial<FakeOptions> = {}): Promise<{ fake: FakeServer; uri: string }> {
  const socket = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's');
  const bytes = Buffer.from(patternBytes(0, SIZE, 3));
  return { fake: await FakeServer.start(t, socket, { bytes, ...options }), uri: uriOf(socket) };
}

async function opened(t: Test, uri: string, wish?: OpenWish): Promise<Disk> {
  const disk = frontDisk(await openNbd(uri, wish), { readOnly: false });
  t.teardown(() => disk.close());
  return disk;
}

async function readAll(disk: Disk): Promise<Buffer> {
  const all = Buffer.alloc(SIZE);
  await disk.read(all, 0);
  return all;
}

t.test('what a server may say in the handshake', async (t) => {
  const { fake, uri } = await served(t);
  const { bytes } = fake.options;
  const put =
    (number: number, at: number, value: Buffer) =>
    (sent: Buffer, count: number): Buffer => {
      const changed = Buffer.from(sent);
      if (count === number) value.copy(changed, at);
      return changed;
    };
  const word = (value: number): Buffer =>
    Buffer.from([value >>> 24, value >>> 16, value >>> 8, value].map((n) => n & 255));
  /** replies to GO before the right ones */
  const flood =
    (count: number, length: number) =>
    (sent: Buffer, number: number): Buffer => {
      if (number !== 2) return sent;
      const header = Buffer.from(sent.subarray(0, 20));
      header.writeUInt32BE(length, 16);
      const reply = Buffer.concat([header, Buffer.alloc(length)]);
      return Buffer.concat([...Array.from({ length: count }, () => reply), sent]);
    };
  const cases: Record<string, [RegExp, Partial<FakeOptions>]> = {
    'another greeting': [/no NBD server/, { change: put(0, 0, Buffer.from('SSH-2.0-')) }],
    'an older style': [/oldstyle/, { change: put(0, 16, Buffer.from([0, 0])) }],
    'a reply to another option': [/something else than it was asked/, { change: put(1, 8, word(99)) }],
    'a long reply': [/4294967295 bytes to an option/, { change: put(1, 16, word(0xffff_ffff)) }],
    'a reply of 32 KiB': [/answers 32768 bytes to an option/, { change: flood(1, 32 << 10) }],
    'many replies': [/more than 64 replies to an option/, { change: flood(10_000, 0) }],
    'many long replies': [/more than 262144 bytes before the transmission/, { change: flood(60, 16 << 10) }],
    'no bytes': [/is empty/, { bytes: Buffer.alloc(0) }],
    'too many bytes': [/the export has 9\d+ bytes/, { change: put(2, 22, Buffer.from([0x7f, 0, 0, 0])) }],
    'a negative size': [/the export has 18\d+ bytes/, { change: put(2, 22, Buffer.alloc(8, 0xff)) }],
    'more than was asked for': [
      /more than it was asked for/,
      { change: (sent, n) => (n === 3 ? Buffer.concat([sent, sent]) : sent) },
    ],
    'nothing of the size': [/does not tell the size/, { change: put(2, 20, Buffer.from([0, 9])) }],
  };
  for (const [what, [message, options]] of Object.entries(cases)) {
    fake.options = { bytes, ...options };
    await t.rejects(openNbd(uri), { name: 'FusetapError', message }, what);
  }
});

t.test('a connection that is cut after each byte of the handshake', async (t) => {
  const { fake, uri } = await served(t, { isStructured: true });
  const { bytes } = fake.options;
  // greeting 18, replies 20, 20 + 19, 20, 20 + 12, 20
  for (let cutAfter = 1; cutAfter < 150; cutAfter += 1) {
    fake.options = { bytes, isStructured: true, cutAfter };
    const error = await openNbd(uri).then(
      (raw) => raw.close(),
      (reason: unknown) => reason,
    );
    if (error !== undefined) t.type(error, FusetapError, `after ${cutAfter} bytes`);
  }
});

for (const isStructured of [false, true]) {
  t.test(
    `a connection that is cut after each byte of a reply, ${isStructured ? 'structured' : 'simple'}`,
    async (t) => {
      const { fake, uri } = await served(t, { isStructured });
      const { bytes } = fake.options;
      const handshake = isStructured ? 149 : 90;
      for (let cut = 0; cut < 40; cut += 3) {
        fake.options = { bytes, isStructured };
        // a disk of its own: the next connections of one disk would come later and later
        const disk = await opened(t, uri);
        fake.options = { bytes, isStructured, cutAfter: handshake + cut };
        fake.dropAll();
        const asked = Buffer.alloc(8);
        const reading = disk.read(asked, 40_000 + cut);
        await new Promise((resolve) => setTimeout(resolve, 20));
        fake.options = { bytes, isStructured };
        await reading;
        t.ok(asked.equals(bytes.subarray(40_000 + cut, 40_008 + cut)), `cut after ${cut} bytes`);
      }
    },
  );
}

const BAD_ANSWERS: Record<string, (request: FakeRequest) => Buffer> = {
  'a magic that is none': ({ cookie }) => Buffer.concat([Buffer.from('abcd'), simple(cookie, 0).subarray(4)]),
  'a cookie of nobody': () => simple(Buffer.alloc(8, 9), 0),
  'a reply for nothing, of the same connection': ({ cookie }) => {
    const other = Buffer.from(cookie);
    other.writeUInt32BE(other.readUInt32BE(4) + 1000, 4);
    return simple(other, 0);
  },
  'a simple reply to a read': ({ cookie, length }) => Buffer.concat([simple(cookie, 0), Buffer.alloc(length)]),
  'data before the request': ({ cookie, offset }) =>
    chunk(cookie, 1, Buffer.concat([place(offset - 1), Buffer.alloc(4)])),
  'data behind the request': ({ cookie, offset, length }) =>
    chunk(cookie, 1, Buffer.concat([place(offset + length - 2), Buffer.alloc(4)])),
  'data of 4 GiB': ({ cookie, offset }) => chunk(cookie, 1, place(offset), { length: 0xffff_ffff }),
  'data at 2^64': ({ cookie }) => chunk(cookie, 1, Buffer.concat([Buffer.alloc(8, 0xff), Buffer.alloc(4)])),
  'a hole behind the request': ({ cookie, offset }) =>
    chunk(cookie, 2, Buffer.concat([place(offset), Buffer.alloc(4, 0xff)])),
  'less than was asked for': ({ cookie, offset }) => chunk(cookie, 1, Buffer.concat([place(offset), Buffer.alloc(4)])),
  'one half twice, the other never': ({ cookie, offset, length }) =>
    Buffer.concat([
      chunk(cookie, 1, Buffer.concat([place(offset), Buffer.alloc(length / 2)]), { isLast: false }),
      chunk(cookie, 1, Buffer.concat([place(offset), Buffer.alloc(length / 2)])),
    ]),
  'parts that overlap': ({ cookie, offset, length }) =>
    Buffer.concat([
      chunk(cookie, 1, Buffer.concat([place(offset), Buffer.alloc(length - 10)]), { isLast: false }),
      chunk(cookie, 2, Buffer.concat([place(offset + length - 20), Buffer.from([0, 0, 0, 20])])),
    ]),
  'more than all': ({ cookie, offset, length }) =>
    Buffer.concat([
      chunk(cookie, 1, Buffer.concat([place(offset), Buffer.alloc(length)]), { isLast: false }),
      chunk(cookie, 2, Buffer.concat([place(offset), Buffer.from([0, 0, 0, 1])])),
    ]),
  nothing: ({ cookie }) => chunk(cookie, 0, Buffer.alloc(0)),
  'a chunk of a type that is none': ({ cookie }) => chunk(cookie, 77, Buffer.alloc(4)),
  'extents of a read': ({ cookie }) => chunk(cookie, 5, Buffer.alloc(12)),
  'an error without a number': ({ cookie }) => chunk(cookie, 32_769, Buffer.alloc(6)),
  'an error whose text is longer than the chunk': ({ cookie }) =>
    chunk(cookie, 32_769, Buffer.from([0, 0, 0, 5, 255, 255])),
  'an error of 4 GiB': ({ cookie }) => chunk(cookie, 32_769, Buffer.alloc(6), { length: 0xffff_fff0 }),
};

function place(offset: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64BE(BigInt(offset));
  return bytes;
}

t.test('answers that the protocol forbids: the connection is made anew', async (t) => {
  const { fake, uri } = await served(t, { isStructured: true });
  const { bytes } = fake.options;
  for (const [what, bad] of Object.entries(BAD_ANSWERS)) {
    let isBad = true;
    const disk = await opened(t, uri);
    const before = fake.connections;
    const answer: FakeOptions['answer'] = (request, send) => {
      if (!isBad || request.command !== 0) return false;
      isBad = false;
      send(bad(request));
      return true;
    };
    fake.options = { bytes, isStructured: true, answer };
    const around = Buffer.alloc(300, 0xaa);
    await disk.read(around.subarray(100, 200), 5000);
    t.ok(around.subarray(100, 200).equals(bytes.subarray(5000, 5100)), what);
    t.ok(
      Buffer.concat([around.subarray(0, 100), around.subarray(200)]).every((byte) => byte === 0xaa),
      'nothing beside',
    );
    t.equal(fake.connections, before + 1, 'one reconnect');
  }
});

t.test('parts of an answer may come in any order', async (t) => {
  const { fake, uri } = await served(t, { isStructured: true });
  const { bytes } = fake.options;
  const answer: FakeOptions['answer'] = ({ command, cookie, offset, length }, send) => {
    if (command !== 0) return false;
    for (const at of [30, 0, 20, 10, 40, 90, 50, 80, 60, 70]) {
      const part = bytes.subarray(offset + at, offset + at + 10);
      send(chunk(cookie, 1, Buffer.concat([place(offset + at), part]), { isLast: false }));
    }
    send(chunk(cookie, 0, Buffer.alloc(0)));
    return length === 100;
  };
  fake.options = { bytes, isStructured: true, answer };
  const disk = await opened(t, uri);
  const read = Buffer.alloc(100);
  await disk.read(read, 5000);
  t.ok(read.equals(bytes.subarray(5000, 5100)));
  t.equal(fake.connections, 1);
});

t.test('which bytes have come', async (t) => {
  const seed = Number(process.env.FUSETAP_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.comment(`FUSETAP_TEST_SEED=${seed}`);
  let state = seed;
  const random = (below: number): number => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fff_ffff;
    return (state >>> 8) % below;
  };
  for (let round = 0; round < 300; round++) {
    const [filled, known] = [new Filled(), new Set<number>()];
    for (let step = 0; step < 40; step++) {
      const start = random(60);
      const bytes = Array.from({ length: 1 + random(6) }, (_, i) => start + i);
      const isNew = bytes.every((at) => !known.has(at));
      if (filled.add(start, bytes.length) !== isNew) t.fail(`round ${round}, step ${step}`);
      if (isNew) for (const at of bytes) known.add(at);
      const end = Math.max(...known) + 1;
      if (filled.isWhole(end) !== (known.size === end)) t.fail(`round ${round}, step ${step}: whole`);
    }
  }
});

t.test('errors of requests', async (t) => {
  const { fake, uri } = await served(t, { isStructured: true });
  const { bytes } = fake.options;
  const disk = await opened(t, uri);
  const errors: [number, string][] = [
    [1, 'EPERM'],
    [5, 'EIO'],
    [12, 'EIO'],
    [22, 'EIO'],
    [28, 'ENOSPC'],
    [75, 'EIO'],
    [4242, 'EIO'],
  ];
  for (const [number, name] of errors) {
    const text = Buffer.from('no\u001b[31m disk');
    const payload = Buffer.concat([Buffer.from([0, 0, number >> 8, number & 255, 0, text.length]), text]);
    const answer: FakeOptions['answer'] = ({ cookie }, send) => {
      send(chunk(cookie, 32_769, payload));
      return true;
    };
    fake.options = { bytes, isStructured: true, answer };
    const { constants } = await import('node:os');
    const errno = constants.errno[name as 'EIO'];
    await t.rejects(disk.read(Buffer.alloc(4), 0), { errno, message: /error \d+: no\?\[31m disk/ }, name);
  }
  fake.options = { bytes, isStructured: true };
  t.ok((await readAll(disk)).equals(bytes), 'and the disk works on');
  t.equal(fake.connections, 1);
});

t.test('ESHUTDOWN is the end of a connection, not an answer', async (t) => {
  const { fake, uri } = await served(t);
  const { bytes } = fake.options;
  const disk = await opened(t, uri);
  let isGoingDown = true;
  const answer: FakeOptions['answer'] = ({ cookie }, send) => {
    if (!isGoingDown) return false;
    isGoingDown = false;
    send(simple(cookie, 108));
    return true;
  };
  fake.options = { bytes, answer };
  t.ok((await readAll(disk)).equals(bytes));
  t.equal(fake.connections, 2);
});

t.test('a server without FUA gets a flush, one without flush is not asked for any', async (t) => {
  const { fake, uri } = await served(t, { flags: 0x05 });
  const disk = await opened(t, uri);
  await disk.write(Buffer.from('x'), 0, { durable: true });
  t.same(
    fake.requests.map(({ command, flags }) => [command, flags]),
    [
      [1, 0],
      [3, 0],
    ],
  );
  const other = await served(t, { flags: 0x01 });
  const plain = await opened(t, other.uri);
  await plain.write(Buffer.from('x'), 0, { durable: true });
  await plain.flush();
  t.same(
    other.fake.requests.map(({ command }) => command),
    [1],
  );
});

t.test('an export that is another one after a reconnect breaks the disk', async (t) => {
  for (const [what, options, message] of [
    ['another size', { bytes: Buffer.alloc(SIZE - 512) }, /had 65536 bytes/],
    ['read-only now', { flags: 0x4f }, /read-only now/],
    ['it cannot flush any more', { flags: 0x49 }, /can do less/],
  ] as const) {
    const { fake, uri } = await served(t);
    const host = recordingHost();
    const disk = await opened(t, uri, { host });
    fake.options = { ...fake.options, ...options };
    fake.dropAll();
    await t.rejects(disk.read(Buffer.alloc(4), 0), { message, errno: 5 }, what);
    t.match(host.states.at(-1), { is: 'broken' });
  }
});

t.test('acknowledged writes that were not flushed are one loss', async (t) => {
  const { fake, uri } = await served(t);
  const host = recordingHost();
  const disk = await opened(t, uri, { host });
  await disk.write(Buffer.from('x'), 0);
  fake.dropAll();
  await readAll(disk);
  t.equal(host.losses.length, 1, 'it is told');
  await disk.flush();
  fake.dropAll();
  await readAll(disk);
  t.equal(host.losses.length, 1, 'once');
  await disk.write(Buffer.from('x'), 0, { durable: true });
  await disk.write(Buffer.from('y'), 0);
  await disk.flush();
  fake.dropAll();
  await readAll(disk);
  t.equal(host.losses.length, 1, 'what is durable cannot be lost');
  const alone = await opened(t, uri);
  await alone.write(Buffer.from('z'), 0);
  fake.dropAll();
  await readAll(alone);
  await t.rejects(alone.flush(), { errno: 5, message: /may be lost/ }, 'without a bus the next flush tells it');
  await alone.flush();
});

t.test('requests that wait fail after the timeout, and are served when the server is back', async (t) => {
  const { fake, uri } = await served(t);
  const { bytes } = fake.options;
  const disk = await opened(t, uri, { options: { timeout: '0.3' } });
  fake.options = { bytes, cutAfter: 3 };
  fake.dropAll();
  // which of both is noticed first depends on the machine
  const message = /not (been there|answered) for 0.3 s/;
  await t.rejects(disk.read(Buffer.alloc(4), 0), { errno: 5, message });
  fake.options = { bytes };
  for (let tries = 0; tries < 600; tries++) {
    if (
      await disk.read(Buffer.alloc(4), 0).then(
        () => true,
        () => false,
      )
    )
      break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  t.ok((await readAll(disk)).equals(bytes));
});

/** A server that takes the first write and does not answer it, as if its disk hung. */
function hanging(release: { send?: () => void }): NonNullable<FakeOptions['answer']> {
  let isFirst = true;
  return ({ command, cookie }, send) => {
    if (command !== 1 || !isFirst) return false;
    isFirst = false;
    release.send = () => send(simple(cookie, 0));
    return true;
  };
}

t.test('a request that the server has, and does not answer, ends after the timeout', async (t) => {
  const { fake, uri } = await served(t, { answer: hanging({}) });
  const host = recordingHost();
  const disk = await opened(t, uri, { host, options: { timeout: '0.5', doubt: '3' } });
  const begun = performance.now();
  await t.rejects(disk.write(Buffer.from('old'), 512), { errno: 5, message: /not answered for 0.5 s/ });
  t.ok(performance.now() - begun < 3000, 'soon');
  t.match(host.states, [{ is: 'reconnecting', reason: /not answered/ }], 'it is told');
  const read = Buffer.alloc(4);
  await disk.read(read, 0);
  t.ok(read.equals(fake.options.bytes.subarray(0, 4)), 'others are served on the next connection');
  t.match(host.states.at(-1), { is: 'connected' });
  t.equal(fake.connections, 2);
  for (const offset of [512, 513]) {
    const newer = disk.write(Buffer.from('new'), offset);
    await t.rejects(newer, { message: /not answered/, errno: 5 }, 'the old write is in doubt: a newer one waits');
  }
});

t.test('a server that is silent is shown, and its requests wait', async (t) => {
  const release: { send?: () => void } = {};
  const { fake, uri } = await served(t, { answer: hanging(release) });
  const host = recordingHost();
  const disk = await opened(t, uri, { host });
  const writing = disk.write(Buffer.from('old'), 512);
  await eventually('it is told', 60_000, async () => host.states.length > 0);
  t.match(host.states, [{ is: 'reconnecting', reason: /not answered for 10 s/ }]);
  release.send?.();
  await writing;
  t.match(host.states.at(-1), { is: 'connected' });
  t.equal(fake.connections, 1, 'on the same connection');
});

t.test('a bus that cannot keep a connection gets another one; no write goes out on the first', async (t) => {
  const { fake, uri } = await served(t);
  const host = recordingHost();
  const disk = await opened(t, uri, { host });
  await disk.write(Buffer.from('x'), 0, { durable: true });
  const { keep } = host;
  let failures = 2;
  host.keep = async (facts, fds) => {
    if (failures-- > 0) throw new FusetapError('FAILED', 'the keeper has too many files open (EMFILE)');
    await keep(facts, fds);
  };
  fake.dropAll();
  await disk.write(Buffer.from('y'), 0);
  t.match(host.states[0], { is: 'reconnecting' });
  t.match(host.states.at(-1), { is: 'connected' });
  t.same(host.losses, []);
  t.same(
    fake.requests.map(({ command, connection }) => [command, connection]),
    [
      [1, 1],
      [2, 2],
      [2, 3],
      [1, 4],
    ],
    'the others were ended in order',
  );
  failures = 1;
  await t.rejects(openNbd(uri, { host }), { message: /cannot keep the connection: .*EMFILE/ }, 'no attach');
});

t.test('giving up fails what waits, and all that comes', async (t) => {
  const { fake, uri } = await served(t);
  const raw = await openNbd(uri);
  fake.options = { ...fake.options, cutAfter: 3 };
  fake.dropAll();
  const waits = raw.read(Buffer.alloc(4), 0);
  setTimeout(() => raw.giveUp?.(), 50);
  await t.rejects(waits, { errno: 5, message: /given up/ });
  await t.rejects(raw.read(Buffer.alloc(4), 0), { errno: 5, message: /given up/ });
  await raw.close();
});

/** Sends the right answers, one behind the other, in pieces of any length, with pauses. */
class InPieces {
  #bytes = Buffer.alloc(0);
  #isSending = false;
  #rounds = 0;
  readonly #content: Buffer;
  readonly #isStructured: boolean;
  /** how much it has sent of answers */
  sentBytes = 0;

  constructor(content: Buffer, isStructured: boolean) {
    this.#content = content;
    this.#isStructured = isStructured;
  }

  answer({ command, cookie, offset, length }: FakeRequest, send: (bytes: Buffer) => void): boolean {
    if (command !== 0) return false;
    const read = this.#content.subarray(offset, offset + length);
    this.#bytes = Buffer.concat([this.#bytes, this.#isStructured ? inChunks(cookie, offset, read) : simpleRead()]);
    if (!this.#isSending) this.#sendOn(send);
    return true;

    function simpleRead(): Buffer {
      return Buffer.concat([simple(cookie, 0), read]);
    }
  }

  #sendOn(send: (bytes: Buffer) => void): void {
    this.#isSending = this.#bytes.length > 0;
    if (!this.#isSending) return;
    // headers are cut everywhere, long payloads come in one piece or in many
    const most = [1, 7, 19, 8191, 8192, 8193, 40_000, 300_000][this.#rounds++ % 8] as number;
    send(this.#bytes.subarray(0, most));
    this.sentBytes += Math.min(most, this.#bytes.length);
    this.#bytes = this.#bytes.subarray(most);
    if (this.#rounds % 3 === 0) setTimeout(() => this.#sendOn(send), 1);
    else setImmediate(() => this.#sendOn(send));
  }
}

/** The chunks of a read: the second half first, in two, then a chunk without data. */
function inChunks(cookie: Buffer, offset: number, read: Buffer): Buffer {
  const half = read.length >> 1;
  const part = (at: number, bytes: Buffer): Buffer => {
    const place = Buffer.alloc(8);
    place.writeBigUInt64BE(BigInt(offset + at));
    return chunk(cookie, 1, Buffer.concat([place, bytes]), { isLast: false });
  };
  const none = chunk(cookie, 0, Buffer.alloc(0));
  return Buffer.concat([part(half, read.subarray(half)), part(0, read.subarray(0, half)), none]);
}

const LONG_SIZE = 2 << 20;

for (const isStructured of [false, true]) {
  t.test(`long and short answers in pieces, ${isStructured ? 'structured' : 'simple'}`, async (t) => {
    const bytes = Buffer.from(patternBytes(0, LONG_SIZE, 5));
    const pieces = new InPieces(bytes, isStructured);
    const { uri } = await served(t, { bytes, isStructured, answer: (...request) => pieces.answer(...request) });
    const disk = await opened(t, uri);
    const lengths = [512, 300_000, 16_384, 4096, 8192, 1 << 20, 100, 24_000];
    const reads = Array.from({ length: 64 }, async (_, i) => {
      const length = lengths[i % lengths.length] as number;
      const offset = (i * 123_457) % (LONG_SIZE - length);
      const room = Buffer.alloc(length);
      await disk.read(room, offset);
      return room.equals(bytes.subarray(offset, offset + length));
    });
    t.same(await Promise.all(reads), Array(64).fill(true));
  });

  t.test(`connections that end within long answers, ${isStructured ? 'structured' : 'simple'}`, async (t) => {
    const bytes = Buffer.from(patternBytes(0, LONG_SIZE, 5));
    const { fake, uri } = await served(t, { bytes, isStructured });
    const disk = await opened(t, uri);
    for (let i = 1; i <= 4; i++) {
      const pieces = new InPieces(bytes, isStructured);
      fake.options = { bytes, isStructured, answer: (...request) => pieces.answer(...request) };
      const room = Buffer.alloc(1 << 20);
      const reading = disk.read(room, i * 1000);
      await eventually('a part of the answer', 60_000, async () => pieces.sentBytes >= i * 200_000);
      fake.options = { bytes, isStructured };
      fake.dropAll();
      await reading;
      t.ok(room.equals(bytes.subarray(i * 1000, i * 1000 + room.length)));
    }
  });
}
