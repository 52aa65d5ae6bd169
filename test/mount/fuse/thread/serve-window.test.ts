/** The requests that a thread answers itself, byte for byte, and those that it leaves to the main thread. */
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { dir } from 'tmp-promise';
import { NOT_SERVED } from '../../../../mount/fuse/thread/serve-window.js';
import type { ServedWindow } from '../../../../mount/fuse/thread/served-disk.js';
import { NO_TURNS } from '../../../../mount/fuse/thread/write-turns.js';
import { BEFORE_BYTES, makeWindowFixture, sent, type WindowFixture } from '../window-fixture.js';
import { fallocateIn, fsyncIn, lseekIn, message, readIn, reply, struct, writeIn } from '../wire.js';

const { EBADF, EIO, ENOSPC, ENXIO, EOPNOTSUPP, EROFS } = constants.errno;
const SIZE = 20_001;
/** of the data of a request */
const LARGEST = 512 << 10;
const [READ, WRITE, FSYNC, FALLOCATE, LSEEK] = [15, 16, 20, 43, 46];
const UNIQUE = 0x8000_0002_0000_0006n;
const FAR = [SIZE, SIZE + 1, 2 ** 53 - 1, 2n ** 53n + 2n, 2n ** 63n - 1n, 2n ** 64n - 1n] as const;

const u64 = (value: number): Buffer => struct(8, { u64: { 0: value } });
const ok = (body?: Buffer): Buffer => reply(UNIQUE, 0, body);
const refusal = (errno: number): Buffer => reply(UNIQUE, -errno);
const ask = (opcode: number, body: Buffer): Buffer => message({ opcode, unique: UNIQUE, nodeId: 2 }, body);

function fixtureOf(t: Test): WindowFixture & { initial: Buffer } {
  const initial = Buffer.alloc(SIZE, 'abcdefg');
  const fixture = makeWindowFixture(initial);
  t.teardown(() => fixture.close());
  return { ...fixture, initial };
}

t.test('data starts at a page boundary in both directions', async (t) => {
  const { server } = fixtureOf(t);
  t.equal((server.requestAddress + 80) % 4096, 0, 'what is to be written');
  t.equal((server.replyAddress + 16) % 4096, 0, 'what was read');
  // the kernel's minimum for the buffer of the largest write
  t.ok(server.requestLimit >= 80 + LARGEST);
});

t.test('READ', async (t) => {
  const { serve, initial } = fixtureOf(t);
  t.strictSame(serve(ask(READ, readIn(7, 14))), ok(Buffer.from('abcdefgabcdefg')));
  t.strictSame(serve(ask(READ, readIn(0, 1 << 20))), ok(initial), 'more than there is');
  t.strictSame(serve(ask(READ, readIn(0, 0xffff_ffff))), ok(initial), 'more than a request may ask');
  t.strictSame(serve(ask(READ, readIn(SIZE - 1, 4096))), ok(initial.subarray(-1)), 'across the end');
  t.strictSame(serve(ask(READ, readIn(5, 0))), ok(), 'of nothing');
  for (const offset of FAR) t.strictSame(serve(ask(READ, readIn(offset, 4096))), ok(), `at ${offset}`);
});

t.test('READ never gives more than the buffer holds', async (t) => {
  const fixture = makeWindowFixture(Buffer.alloc(LARGEST + 8192, 'abcdefg'));
  t.teardown(() => fixture.close());
  for (const size of [LARGEST + 1, LARGEST + 8192, 0xffff_ffff]) {
    t.equal(fixture.serve(ask(READ, readIn(0, size)))?.length, 16 + LARGEST, `asked for ${size}`);
  }
});

t.test('READ of bytes that are not in memory is put off, and answered later', async (t) => {
  const { server, serve, window, initial } = fixtureOf(t);
  // a memfd served as a file refuses RWF_NOWAIT, as a disk does if it would have to wait
  const onDisk = { kind: 'file' } as const;
  t.strictSame(serve(ask(READ, readIn(7, 14)), onDisk, true), ok(initial.subarray(7, 21)), 'not where it must not be');
  server.mayDefer = true;
  t.equal(serve(ask(READ, readIn(7, 14)), onDisk, true), 'put off');
  t.equal(serve(ask(READ, readIn(0, 64 << 10)), onDisk, true), 'put off');
  t.not(serve(ask(READ, readIn(0, (64 << 10) + 1)), onDisk, true), 'put off', 'a large one is waited for');
  t.not(serve(ask(READ, readIn(7, 14)), onDisk, false), 'put off', 'nor where nobody can tell what is in memory');
  const fromDisk = { ...window, ...onDisk };
  const served: ServedWindow = {
    window: fromDisk,
    durably: fromDisk,
    canReadNoWait: true,
    mappedAt: 0,
    turns: NO_TURNS,
    mayGrow: false,
  };
  const read = { uniqueLow: 2, uniqueHigh: 1, served, offset: SIZE - 3, size: 4096 };
  // another request has been served meanwhile
  serve(ask(READ, readIn(0, 5)));
  t.equal(server.finishRead(read, false), NOT_SERVED);
  const reply = sent(server, server.finishRead(read, true));
  t.strictSame(reply.subarray(16), initial.subarray(-3));
  t.same([reply.readUInt32LE(0), reply.readInt32LE(4)], [19, 0]);
  t.same([reply.readUInt32LE(8), reply.readUInt32LE(12)], [2, 1], 'to whom it belongs');
  t.same([server.kind, server.result], [0, 3]);
  const broken = { ...read, served: { ...served, window: { ...served.window, fd: -1 } } };
  const refused = sent(server, server.finishRead(broken, true));
  t.same([refused.length, refused.readInt32LE(4)], [16, -EBADF], 'and what failed');
});

t.test('WRITE', async (t) => {
  const { serve, content, initial, ledger } = fixtureOf(t);
  t.strictSame(serve(ask(WRITE, writeIn(4098, Buffer.from('hello')))), ok(u64(5)));
  initial.write('hello', 4098);
  t.strictSame(content(), initial);
  t.ok(Date.now() / 1000 - ledger.attributes(0).mtimeSec < 10, 'is noted');
  t.strictSame(serve(ask(WRITE, writeIn(SIZE - 3, Buffer.from('tail!')))), ok(u64(3)), 'across the end');
  initial.write('tai', SIZE - 3);
  t.strictSame(content(), initial);
  for (const offset of FAR) t.strictSame(serve(ask(WRITE, writeIn(offset, Buffer.from('x')))), refusal(ENOSPC));
  t.strictSame(serve(ask(WRITE, writeIn(0, Buffer.alloc(0)))), ok(u64(0)), 'of nothing');
  t.strictSame(serve(ask(WRITE, writeIn(0, Buffer.from('x'))), { readOnly: true }), refusal(EROFS));
  t.strictSame(serve(ask(WRITE, writeIn(0, Buffer.alloc(0))), { readOnly: true }), refusal(EROFS));
  t.strictSame(content(), initial);
});

for (const isMapped of [false, true]) {
  t.test(`WRITE of large sizes${isMapped ? ', mapped' : ''}`, async (t) => {
    const fixture = makeWindowFixture(Buffer.alloc(LARGEST + 100), isMapped);
    t.teardown(() => fixture.close());
    const { serve, content } = fixture;
    const data = Buffer.alloc(LARGEST, 'a pattern of some length');
    const expected = content();
    t.strictSame(serve(ask(WRITE, writeIn(1, data))), ok(u64(LARGEST)));
    expected.set(data, 1);
    t.ok(content().equals(expected));
    t.ok((serve(ask(READ, readIn(1, LARGEST))) as Buffer).equals(ok(data)));
    t.strictSame(serve(ask(WRITE, writeIn(100, data.subarray(3)))), ok(u64(LARGEST - 3)), 'to the last byte');
    expected.set(data.subarray(3), 100);
    t.ok(content().equals(expected));
    t.strictSame(serve(ask(WRITE, writeIn(200, data))), ok(u64(LARGEST - 100)), 'across the end');
    expected.set(data.subarray(0, LARGEST - 100), 200);
    t.ok(content().equals(expected));
    for (const offset of [LARGEST + 100, ...FAR.slice(2)]) {
      t.strictSame(serve(ask(WRITE, writeIn(offset, data))), refusal(ENOSPC), `at ${offset}`);
    }
    t.strictSame(serve(ask(WRITE, writeIn(0, data)), { readOnly: true }), refusal(EROFS));
    t.ok(content().equals(expected));
  });
}

t.test('FALLOCATE', async (t) => {
  const { serve, content, initial } = fixtureOf(t);
  for (const mode of [0, 1]) {
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, 0, SIZE))), ok(), `mode ${mode}`);
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, 1, SIZE))), refusal(ENOSPC), `mode ${mode} beyond the end`);
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, 2n ** 62n, 2n ** 62n))), refusal(ENOSPC), 'far beyond');
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, 0, 1)), { readOnly: true }), refusal(EROFS));
  }
  t.strictSame(content(), initial, 'space without a change');
  let at = 100;
  for (const mode of [0x03, 0x10, 0x11]) {
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, at, 3000))), ok(), `mode ${mode}`);
    initial.fill(0, at, at + 3000);
    t.strictSame(content(), initial);
    at += 4000;
    for (const offset of FAR)
      t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, offset, 4096))), ok(), `at ${offset}`);
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, 0, 1)), { readOnly: true }), refusal(EROFS));
  }
  t.strictSame(serve(ask(FALLOCATE, fallocateIn(3, SIZE - 10, 2n ** 62n))), ok(), 'clamped to the end');
  initial.fill(0, SIZE - 10);
  t.strictSame(content(), initial);
  for (const mode of [0x02, 0x08, 0x20, 0x40, 0xffff_ffff]) {
    t.strictSame(serve(ask(FALLOCATE, fallocateIn(mode, 0, 4096))), refusal(EOPNOTSUPP), `mode ${mode}`);
  }
});

t.test('LSEEK', async (t) => {
  const { serve } = fixtureOf(t);
  // a hole of whole pages of the file, which starts a page before the window
  serve(ask(FALLOCATE, fallocateIn(3, 4096, 8192)));
  t.strictSame(serve(ask(LSEEK, lseekIn(10, 4))), ok(u64(4096)), 'SEEK_HOLE');
  t.strictSame(serve(ask(LSEEK, lseekIn(5000, 4))), ok(u64(5000)), 'SEEK_HOLE inside one');
  t.strictSame(serve(ask(LSEEK, lseekIn(5000, 3))), ok(u64(12288)), 'SEEK_DATA');
  t.strictSame(serve(ask(LSEEK, lseekIn(13_000, 4))), ok(u64(SIZE)), 'the end is a hole');
  for (const offset of FAR) {
    t.strictSame(serve(ask(LSEEK, lseekIn(offset, 3))), refusal(ENXIO), `SEEK_DATA from ${offset}`);
    t.strictSame(serve(ask(LSEEK, lseekIn(offset, 4))), refusal(ENXIO), `SEEK_HOLE from ${offset}`);
  }
});

t.test('FSYNC is answered by the thread until a flush has failed', async (t) => {
  const { serve, ledger } = fixtureOf(t);
  t.strictSame(serve(ask(FSYNC, fsyncIn(9n))), ok());
  t.equal(serve(ask(FSYNC, fsyncIn(9n)), { kind: 'file', fd: 1_000_000 }), 'handed over');
  t.strictSame(ledger.flushErrors(0), { count: 1, errno: EBADF });
  t.equal(serve(ask(FSYNC, fsyncIn(9n))), 'handed over', 'who was told is the main thread’s to know');
  t.strictSame(ledger.flushErrors(0), { count: 1, errno: EBADF }, 'a flush that succeeds adds nothing');
});

t.test('a request that is handed over is unchanged', async (t) => {
  const { serve, server } = fixtureOf(t);
  const bytes = ask(FSYNC, fsyncIn(9n));
  t.equal(serve(bytes, { kind: 'file', fd: 1_000_000 }), 'handed over');
  t.strictSame(Buffer.concat([server.request.bytes.subarray(0, bytes.length)]), bytes);
});

t.test('all other opcodes are for the main thread', async (t) => {
  const { serve } = fixtureOf(t);
  const own = [READ, WRITE, FSYNC, FALLOCATE, LSEEK];
  for (let opcode = 1; opcode < 64; opcode++) {
    if (own.includes(opcode)) continue;
    t.equal(serve(ask(opcode, Buffer.alloc(96))), 'handed over', `opcode ${opcode}`);
  }
});

t.test('an image that shrank is EIO, never zeros', async (t) => {
  const { serve, window } = fixtureOf(t);
  ftruncateSync(window.fd, BEFORE_BYTES + 100);
  t.strictSame(serve(ask(READ, readIn(0, 100))), ok(Buffer.alloc(100, 'abcdefg')), 'what is left');
  t.strictSame(serve(ask(READ, readIn(0, 101))), refusal(EIO));
  t.strictSame(serve(ask(READ, readIn(4096, 512))), refusal(EIO));
  t.strictSame(serve(ask(LSEEK, lseekIn(4096, 3))), refusal(EIO), 'nor a hole');
});

t.test('a thread gives its permit away before it waits for a disk, and only then', async (t) => {
  const { serve, permitsGiven, initial, window } = fixtureOf(t);
  const gives = (what: string, expected: number, act: () => unknown): void => {
    const before = permitsGiven();
    act();
    t.equal(permitsGiven() - before, expected, what);
  };
  const DSYNC = 0o10000;
  const [O_SYNC, O_RDWR] = [0o4010000, 2];
  const data = Buffer.from('x');
  gives('READ of memory', 0, () => serve(ask(READ, readIn(0, 512))));
  gives('WRITE', 0, () => serve(ask(WRITE, writeIn(0, data, O_RDWR))));
  gives('FALLOCATE of memory', 0, () => serve(ask(FALLOCATE, fallocateIn(3, 0, 512))));
  gives('LSEEK', 0, () => serve(ask(LSEEK, lseekIn(0, 3))));
  gives('WRITE with O_DSYNC', 1, () => serve(ask(WRITE, writeIn(0, data, O_RDWR | DSYNC))));
  gives('WRITE with O_SYNC', 1, () => serve(ask(WRITE, writeIn(0, data, O_RDWR | O_SYNC))));
  gives('WRITE to a durable window', 1, () => serve(ask(WRITE, writeIn(0, data)), { durable: true }));
  gives('FSYNC', 1, () => serve(ask(FSYNC, fsyncIn(0n))));
  gives('FALLOCATE of a file', 1, () => serve(ask(FALLOCATE, fallocateIn(3, 0, 512)), { kind: 'file' }));
  // a memfd taken for a file refuses RWF_NOWAIT, which stands for "would have to wait"
  gives('READ that would wait', 1, () => {
    const answer = serve(ask(READ, readIn(700, 70)), { kind: 'file' }, true);
    t.strictSame(answer, ok(initial.subarray(700, 770)), 'and the bytes are right');
  });
  gives('READ where nobody can tell', 0, () => serve(ask(READ, readIn(0, 512)), { kind: 'file' }, false));
  t.equal(window.kind, 'memory');
});

t.test('a read that does not wait keeps the permit', async (t) => {
  const { path, cleanup } = await dir({ unsafeCleanup: true });
  t.teardown(cleanup);
  const { serve, permitsGiven } = fixtureOf(t);
  const fd = openSync(join(path, 'image'), 'w+');
  t.teardown(() => closeSync(fd));
  const onFile = { fd, start: 0, kind: 'file' } as const;
  serve(ask(WRITE, writeIn(0, Buffer.alloc(SIZE, 'q'))), onFile);
  // just written: it is in the page cache
  const answer = serve(ask(READ, readIn(0, 4096)), onFile, true);
  t.strictSame(answer, ok(Buffer.alloc(4096, 'q')));
  if (permitsGiven() > 0) t.comment('this file system cannot read without waiting');
  else t.equal(permitsGiven(), 0);
});
