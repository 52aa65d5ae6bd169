/**
 * A server dies while a reply has come only in part, and has looked at that part already. The memory that it leaves must tell
 * the next one what to wait for. The memory is that of a real connection, copied at the moment of the death.
 */
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { Drain } from '../../../drivers/nbd/drain.js';
import { KeptState, TAIL_BYTES } from '../../../drivers/nbd/takeover/kept-state.js';
import { type Reaped, reap } from '../../../drivers/nbd/takeover/reap.js';
import { eventually } from '../../e2e/command.js';
import { chunk, type FakeRequest, FakeServer, simple } from './fake-server.js';
import { oldConnection, openNbd, recordingHost } from './open.js';
import { uriOf } from './servers.js';

t.setTimeout(120_000);

const READ = 0;
const WRITE = 1;
const BLOCK_STATUS = 7;
const ERROR = 0x8001;
const ERROR_OFFSET = 0x8002;
const EIO = 5;
const SIZE = 1 << 16;
/** a next server that waits longer waits for ever */
const LIMIT_MS = 10_000;
/** for a wait that is expected */
const SHORT_MS = 1_000;

/** A request that the server has got, and how to answer it in parts. */
interface Open {
  readonly request: FakeRequest;
  send(bytes: Buffer): void;
}

interface Stage {
  readonly fake: FakeServer;
  readonly disk: Disk;
  readonly state: KeptState;
  /** The first open request of that command. */
  next(command: number): Promise<Open>;
}

/** A disk whose server answers nothing by itself. */
async function staged(t: Test, options: Record<string, string> = {}): Promise<Stage> {
  const open: Open[] = [];
  const socket = join(mkdtempSync(join(tmpdir(), 'nbd-')), 's');
  const answer = (request: FakeRequest, send: (bytes: Buffer) => void): boolean => open.push({ request, send }) > 0;
  const fake = await FakeServer.start(t, socket, { bytes: Buffer.alloc(SIZE), isStructured: true, answer });
  const host = recordingHost();
  const disk = frontDisk(await openNbd(uriOf(socket), { options, host }), { readOnly: false });
  t.teardown(() => disk.close());
  const next = async (command: number): Promise<Open> => {
    const isNext = ({ request }: Open): boolean => request.command === command;
    await eventually('the request', 30_000, async () => open.some(isNext));
    return open.splice(open.findIndex(isNext), 1)[0] as Open;
  };
  return { fake, disk, state: KeptState.adopt(host.kept[0]?.fds[0] as number) as KeptState, next };
}

/** Sends a part of a reply. @returns a copy of the memory, when the connection has looked at the part */
async function lookedAt(state: KeptState, { send }: Open, part: Buffer): Promise<KeptState> {
  const last = part.subarray(-TAIL_BYTES);
  // what was there before must not look like the part
  state.received.fill(0xff, 0, TAIL_BYTES);
  send(part);
  await eventually('the part was looked at', 30_000, async () =>
    state.received.subarray(TAIL_BYTES - last.length, TAIL_BYTES).equals(last),
  );
  const copy = KeptState.create();
  new Uint8Array(copy.buffer.buffer).set(new Uint8Array(state.buffer.buffer));
  return copy;
}

/** What the next server does with that memory. The old connection lives, and the rest comes on it. */
async function reaped(t: Test, state: KeptState, rest: Buffer, limitMs = LIMIT_MS): Promise<Reaped | 'waits for ever'> {
  const { ours, far } = oldConnection(t);
  far.resume();
  const signal = AbortSignal.timeout(limitMs);
  const reaping = reap(ours, state, { isReadable: true, flushes: false, signal, drain: new Drain() });
  far.write(rest);
  return await reaping.catch((error: unknown) => {
    if (signal.aborted) return 'waits for ever';
    throw error;
  });
}

/** The payload of an error. */
function errorOf(text: Buffer, type = ERROR): Buffer {
  const head = Buffer.alloc(6);
  head.writeUInt32BE(EIO, 0);
  head.writeUInt16BE(text.length, 4);
  return Buffer.concat([head, text, Buffer.alloc(type === ERROR_OFFSET ? 8 : 0)]);
}

const HEADER = 20;
/** within the header, within the error, within the text until the header has left the tail, and far behind */
const CUTS = [1, 4, 7, 8, 12, 16, 19, HEADER, 21, 26, 31, 32, 33, 35, 36, 37, 60, 1000, 4000];

for (const [title, text, type] of [
  ['a long text', Buffer.alloc(4096, 'no space '), ERROR],
  ['an offset behind the text', Buffer.alloc(4096, 'no space '), ERROR_OFFSET],
  ['a text of zeros', Buffer.alloc(4096), ERROR],
] as const) {
  t.test(`a write that failed, cut within its reply: ${title}`, async (t) => {
    const { disk, state, next } = await staged(t);
    for (const cut of CUTS) {
      const writing = disk.write(Buffer.alloc(512, 'w'), 0);
      const open = await next(WRITE);
      const reply = chunk(open.request.cookie, type, errorOf(text, type));
      const memory = await lookedAt(state, open, reply.subarray(0, cut));
      t.match(await reaped(t, memory, reply.subarray(cut)), { doubtful: [], endedBy: null }, `after ${cut} bytes`);
      open.send(reply.subarray(cut));
      await t.rejects(writing, { message: /NBD/ }, 'the client learns of the error');
    }
  });
}

t.test('another write gets the slot of one whose error has come in part', async (t) => {
  const { disk, state, next } = await staged(t);
  const failing = disk.write(Buffer.alloc(512, 'w'), 0);
  const first = await next(WRITE);
  const reply = chunk(first.request.cookie, ERROR, errorOf(Buffer.alloc(4096, 'no space ')));
  await lookedAt(state, first, reply.subarray(0, 1000));
  t.same(state.slots(), [], 'the server has done with it');
  const writing = disk.write(Buffer.alloc(512, 'x'), 512);
  const second = await next(WRITE);
  const memory = await lookedAt(state, first, reply.subarray(1000, 2000));
  t.equal(await reaped(t, memory, reply.subarray(2000), SHORT_MS), 'waits for ever', 'the other one is waited for');
  first.send(reply.subarray(2000));
  await t.rejects(failing, { message: /no space/ });
  t.match(state.slots(), [{ offset: 512 }], 'the end of the reply frees only what is its own');
  second.send(chunk(second.request.cookie, 0, Buffer.alloc(0)));
  await writing;
  t.same(state.slots(), []);
});

t.test('a connection ends within the error of a write: the write is sent again, and another one waits', async (t) => {
  const { disk, state, next, fake } = await staged(t, { doubt: '4' });
  const writing = disk.write(Buffer.alloc(512, 'w'), 0);
  const open = await next(WRITE);
  const reply = chunk(open.request.cookie, ERROR, errorOf(Buffer.alloc(4096, 'no space ')));
  await lookedAt(state, open, reply.subarray(0, 1000));
  fake.dropAll();
  const again = await next(WRITE);
  t.equal(again.request.connection, 2);
  again.send(chunk(again.request.cookie, 0, Buffer.alloc(0)));
  await writing;
  const begun = performance.now();
  const other = disk.write(Buffer.alloc(512, 'o'), 256);
  const late = await next(WRITE);
  t.ok(performance.now() - begun > 1_000, 'nothing is known for certain of a reply that did not end');
  late.send(chunk(late.request.cookie, 0, Buffer.alloc(0)));
  await other;
});

/** Another request, and a reply to it. */
interface Other {
  readonly title: string;
  readonly command: number;
  begin(disk: Disk): Promise<unknown>;
  reply(request: FakeRequest, write: FakeRequest): Buffer;
  readonly cuts: readonly number[];
}

const READ_BYTES = 4096;
const place = Buffer.alloc(8);

/** Extents of 512 bytes, which are data and zeros in turn: their bytes are mostly zeros. */
function statusOf(count: number): Buffer {
  const status = Buffer.alloc(4 + 8 * count);
  status.writeUInt32BE(7, 0);
  for (let i = 0; i < count; i++) status.writeUInt32BE(512, 4 + 8 * i);
  return status;
}

const OTHERS: Other[] = [
  {
    title: 'data, also within its offset',
    command: READ,
    begin: (disk) => disk.read(Buffer.alloc(READ_BYTES), 0),
    reply: ({ cookie }) => chunk(cookie, 1, Buffer.concat([place, Buffer.alloc(READ_BYTES, 'data')])),
    cuts: [HEADER + 1, HEADER + 4, HEADER + 7, HEADER + 8, HEADER + 9, 1000, HEADER + 8 + READ_BYTES],
  },
  {
    title: 'a block status',
    command: BLOCK_STATUS,
    begin: async (disk) => await disk.extents?.(0, SIZE),
    reply: ({ cookie }) => chunk(cookie, 5, statusOf(SIZE / 512)),
    cuts: [HEADER + 2, HEADER + 4, HEADER + 6, HEADER + 40, HEADER + 44, 500],
  },
  {
    title: 'an error whose text has the request of the write, and the beginning of a reply',
    command: READ,
    begin: (disk) => disk.read(Buffer.alloc(READ_BYTES), 0).catch(() => {}),
    reply: ({ cookie }, write) => {
      const request = Buffer.alloc(28);
      request.writeUInt32BE(0x2560_9513, 0);
      request.writeUInt16BE(WRITE, 6);
      write.cookie.copy(request, 8);
      const own = simple(cookie, 0);
      const text = Buffer.concat([request, own, Buffer.alloc(100), own.subarray(0, 8), Buffer.alloc(900)]);
      return chunk(cookie, ERROR, errorOf(text));
    },
    cuts: [HEADER + 3, HEADER + 6 + 16, HEADER + 6 + 28, HEADER + 6 + 28 + 12, HEADER + 6 + 28 + 16 + 108, 900],
  },
];

for (const { title, command, begin, reply, cuts } of OTHERS) {
  t.test(`a reply to another request is cut while a write is in flight: ${title}`, async (t) => {
    const { disk, state, next } = await staged(t);
    for (const cut of cuts) {
      const writing = disk.write(Buffer.alloc(512, 'w'), 0);
      const write = await next(WRITE);
      const working = begin(disk);
      const open = await next(command);
      const bytes = reply(open.request, write.request);
      const memory = await lookedAt(state, open, bytes.subarray(0, cut));
      const answer = chunk(write.request.cookie, 0, Buffer.alloc(0));
      const rest = bytes.subarray(cut);
      t.match(await reaped(t, memory, Buffer.concat([rest, answer])), { doubtful: [], endedBy: null }, `after ${cut}`);
      open.send(rest);
      write.send(answer);
      await Promise.all([writing, working]);
    }
  });

  t.test(`such a reply is no answer to the write: ${title}`, async (t) => {
    const { disk, state, next } = await staged(t);
    const writing = disk.write(Buffer.alloc(512, 'w'), 0);
    const write = await next(WRITE);
    const working = begin(disk);
    const open = await next(command);
    const bytes = reply(open.request, write.request);
    const cut = cuts.at(-1) as number;
    const memory = await lookedAt(state, open, bytes.subarray(0, cut));
    t.equal(await reaped(t, memory, bytes.subarray(cut), SHORT_MS), 'waits for ever', 'as for any slow disk');
    open.send(bytes.subarray(cut));
    write.send(chunk(write.request.cookie, 0, Buffer.alloc(0)));
    await Promise.all([writing, working]);
  });
}
