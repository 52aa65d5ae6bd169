/** The encoding, compared with messages of a real kernel and with structs laid out by hand. */
import t from 'tap';
import * as abi from '../../../../mount/fuse/protocol/abi.js';
import {
  appendDirent,
  isOneWay,
  isWellFormed,
  Reply,
  Request,
  writeAttributes,
} from '../../../../mount/fuse/protocol/message.js';
import { CAPTURED } from '../captured/requests.js';
import { attr, batchForgetIn, dirent, message, name, reply, struct, writeIn } from '../wire.js';

function captured(act: string, opcode: number): Request {
  const found = CAPTURED.find((one) => one.act === act && one.opcode === opcode);
  if (found === undefined) throw new Error(`nothing captured of "${act}", opcode ${opcode}`);
  const bytes = Buffer.from(found.hex, 'hex');
  const copy = Buffer.from(new ArrayBuffer(Math.ceil(bytes.length / 8) * 8));
  bytes.copy(copy);
  return new Request(copy.subarray(0, bytes.length));
}

/** the handle in all requests of the client: the unique of its OPEN */
const OPENED = captured('open', 14).uniqueId;

/** The content of each captured request, by the act of the client: the opcode's number, then fields. */
const DECODED: readonly (readonly [act: string, opcode: number, read: (r: Request) => unknown, expected: unknown])[] = [
  ['mount', 26, (r) => [r.opcode === abi.INIT, r.bodyU32(abi.INIT_MAJOR), r.bodyU32(abi.INIT_MINOR)], [true, 7, 45]],
  ['mount', 26, (r) => r.bodyU32(abi.INIT_MAX_READAHEAD), 131072],
  ['mount', 26, (r) => r.bodyU32(abi.INIT_FLAGS), 0x73fffffb],
  ['mount', 26, (r) => r.bodyU32(abi.INIT_FLAGS2), 0x5fd],
  ['stat xvda', 1, (r) => [r.opcode === abi.LOOKUP, r.nodeId, r.name()], [true, 1, 'xvda']],
  ['stat nothing', 1, (r) => [r.nodeId, r.name()], [1, 'nothing']],
  ['stat xvda', 3, (r) => [r.opcode === abi.GETATTR, r.nodeId], [true, 2]],
  ['list', 27, (r) => [r.opcode === abi.OPENDIR, r.nodeId], [true, 1]],
  ['list', 28, (r) => [r.opcode === abi.READDIR, r.bodyU64(abi.RW_OFFSET), r.bodyU32(abi.RW_SIZE)], [true, 0, 32768]],
  ['list', 29, (r) => r.opcode === abi.RELEASEDIR, true],
  ['statfs', 17, (r) => [r.opcode === abi.STATFS, r.length], [true, 40]],
  ['open', 14, (r) => [r.opcode === abi.OPEN, r.nodeId, r.bodyU32(abi.OPEN_FLAGS)], [true, 2, 0o100002]],
  ['open O_TRUNC', 14, (r) => r.bodyU32(abi.OPEN_FLAGS), 0o101002],
  ['pread 4096 at 8192', 15, (r) => r.opcode === abi.READ, true],
  ['pread 4096 at 8192', 15, (r) => [r.bodyU64(abi.RW_OFFSET), r.bodyU32(abi.RW_SIZE)], [8192, 4096]],
  ['pread 4096 at 8192', 15, (r) => [r.bodyU64(abi.RW_FH), r.bodyU32(abi.RW_FLAGS)], [OPENED, 0o100002]],
  ['pread 512 at 2^53 + 2', 15, (r) => r.bodyU64(abi.RW_OFFSET), 2 ** 53 + 2],
  ['pwrite 3 bytes at 4098', 16, (r) => r.opcode === abi.WRITE, true],
  ['pwrite 3 bytes at 4098', 16, (r) => [r.bodyU64(abi.RW_OFFSET), r.bodyU32(abi.RW_SIZE)], [4098, 3]],
  ['pwrite 3 bytes at 4098', 16, (r) => r.bytes.subarray(80).toString('hex'), 'abcdef'],
  ['O_DSYNC write of 2 bytes at 10', 16, (r) => r.bodyU32(abi.RW_FLAGS) & 0o10000, 0o10000],
  [
    'fsync',
    20,
    (r) => [r.opcode === abi.FSYNC, r.bodyU64(abi.FSYNC_FH), r.bodyU32(abi.FSYNC_FLAGS)],
    [true, OPENED, 0],
  ],
  ['fdatasync', 20, (r) => r.bodyU32(abi.FSYNC_FLAGS), abi.FSYNC_FDATASYNC],
  ['fallocate 0', 22, (r) => r.opcode === abi.GETXATTR, true],
  ['fallocate 0', 43, (r) => [r.opcode === abi.FALLOCATE, ...allocation(r)], [true, 0, 4096, 8192]],
  ['fallocate keep size', 43, (r) => allocation(r), [1, 4096, 8192]],
  ['fallocate punch', 43, (r) => allocation(r), [3, 12288, 20480]],
  ['fallocate zero', 43, (r) => allocation(r), [0x10, 24576, 512]],
  ['seek data from 100', 46, (r) => [r.opcode === abi.LSEEK, ...seek(r)], [true, 100, 3]],
  ['seek hole from 200', 46, (r) => seek(r), [200, 4]],
  ['BLKGETSIZE64', 39, (r) => [r.opcode === abi.IOCTL, r.bodyU32(abi.IOCTL_CMD)], [true, 0x80081272]],
  ['BLKGETSIZE64', 39, (r) => r.bodyU32(abi.IOCTL_OUT_SIZE), 8],
  ['BLKSSZGET', 39, (r) => [r.bodyU32(abi.IOCTL_CMD), r.bodyU32(abi.IOCTL_OUT_SIZE)], [0x1268, 0]],
  ['truncate to the same size', 4, (r) => r.opcode === abi.SETATTR, true],
  ['truncate to the same size', 4, (r) => [setBits(r), r.bodyU64(abi.SETATTR_SIZE)], [abi.FATTR_SIZE, 1 << 20]],
  ['ftruncate to 77', 4, (r) => [setBits(r), r.bodyU64(abi.SETATTR_SIZE)], [abi.FATTR_SIZE, 77]],
  ['chmod 640', 4, (r) => [setBits(r), r.bodyU32(abi.SETATTR_MODE)], [abi.FATTR_MODE, 0o100640]],
  ['chown 11 22', 4, (r) => [setBits(r), ownerOf(r)], [abi.FATTR_UID | abi.FATTR_GID, [11, 22]]],
  ['utimes 1000 2000', 4, (r) => [setBits(r), timesOf(r)], [abi.FATTR_ATIME | abi.FATTR_MTIME, [1000, 0, 2000, 0]]],
  ['a time before the epoch', 4, (r) => [setBits(r), timesOf(r).slice(2)], [abi.FATTR_MTIME, [-86401, 500_000_000]]],
  ['touch', 4, (r) => setBits(r), abi.FATTR_ATIME | abi.FATTR_MTIME | abi.FATTR_ATIME_NOW | abi.FATTR_MTIME_NOW],
  ['a time before the epoch', 34, (r) => r.opcode === abi.ACCESS, true],
  ['close', 18, (r) => [r.opcode === abi.RELEASE, r.bodyU64(abi.RELEASE_FH)], [true, OPENED]],
  ['sync the directory', 30, (r) => [r.opcode === abi.FSYNCDIR, r.nodeId], [true, 1]],
  ['create new', 35, (r) => r.opcode === abi.CREATE, true],
  ['mknod pipe', 8, (r) => r.opcode === abi.MKNOD, true],
  ['mkdir dir', 9, (r) => r.opcode === abi.MKDIR, true],
  ['unlink xvda', 10, (r) => [r.opcode === abi.UNLINK, r.name()], [true, 'xvda']],
  ['rename xvda other', 12, (r) => r.opcode === abi.RENAME, true],
  ['mv xvda moved', 45, (r) => r.opcode === abi.RENAME2, true],
  ['link xvda twin', 13, (r) => r.opcode === abi.LINK, true],
  ['symlink xvda soft', 6, (r) => r.opcode === abi.SYMLINK, true],
  ['forget one', 2, (r) => [r.opcode === abi.FORGET, r.nodeId, r.bodyU64(0)], [true, 4, 2]],
  ['forget all', 42, (r) => [r.opcode === abi.BATCH_FORGET, r.bodyU32(0) >= 2], [true, true]],
  ['forget all', 42, (r) => forgottenBy(r).map(isFile), [true, true]],
];

const allocation = (r: Request): number[] => [
  r.bodyU32(abi.FALLOCATE_MODE),
  r.bodyU64(abi.FALLOCATE_OFFSET),
  r.bodyU64(abi.FALLOCATE_LENGTH),
];
const seek = (r: Request): number[] => [r.bodyU64(abi.LSEEK_OFFSET), r.bodyU32(abi.LSEEK_WHENCE)];
/** without FH, LOCKOWNER and CTIME, which do not matter here */
const setBits = (r: Request): number => r.bodyU32(abi.SETATTR_VALID) & ~(64 | 512 | 1024);
const forgottenBy = (r: Request): number[] => [0, 1].map((i) => r.u64(abi.IN_BODY + (8 + 16 * i) / 4));
const isFile = (nodeId: number): boolean => nodeId >= 2 && nodeId <= 4;
const ownerOf = (r: Request): number[] => [r.bodyU32(abi.SETATTR_UID), r.bodyU32(abi.SETATTR_GID)];
const timesOf = (r: Request): number[] => [
  r.bodyI64(abi.SETATTR_ATIME),
  r.bodyU32(abi.SETATTR_ATIME_NSEC),
  r.bodyI64(abi.SETATTR_MTIME),
  r.bodyU32(abi.SETATTR_MTIME_NSEC),
];

t.test('captured requests are decoded as the acts of their client', async (t) => {
  for (const [act, opcode, read, expected] of DECODED) t.strictSame(read(captured(act, opcode)), expected, act);
});

t.test('captured requests are well-formed, and no shorter part of them is', async (t) => {
  for (const { act, opcode, hex } of CAPTURED) {
    const whole = Buffer.from(hex, 'hex');
    const bytes = Buffer.from(new ArrayBuffer(whole.length));
    whole.copy(bytes);
    const request = new Request(bytes);
    t.equal(isWellFormed(request, bytes.length), true, act);
    t.equal(request.opcode, opcode);
    t.equal(request.length, bytes.length);
    for (let length = 0; length < bytes.length; length++) {
      if (isWellFormed(request, length)) t.fail(`${act}: the first ${length} of ${bytes.length} bytes pass`);
    }
  }
});

t.test('the header of a request', async (t) => {
  const request = new Request(message({ opcode: 3, unique: 0x8000_0001_0000_0abcn, nodeId: 0x2_0000_0003, pid: 77 }));
  t.equal(request.length, 40);
  t.equal(request.nodeId, 0x2_0000_0003);
  t.equal(request.pid, 77);
  t.equal(request.uniqueLow, 0xabc);
  t.equal(request.uniqueHigh, 0x8000_0001);
  t.equal(request.uniqueId, 0x1_0000_0abc, 'the same for a request and its repeat');
});

t.test('a body too short for its opcode is not well-formed', async (t) => {
  // the size of the body of each opcode in the protocol
  const least = {
    1: 2,
    2: 8,
    3: 16,
    4: 88,
    14: 8,
    15: 40,
    18: 24,
    20: 16,
    26: 16,
    27: 8,
    28: 40,
    39: 32,
    43: 32,
    46: 24,
  };
  for (const [opcode, bytes] of Object.entries(least)) {
    const passes = (size: number) => {
      const bytes = message({ opcode: Number(opcode) }, Buffer.alloc(size));
      return isWellFormed(new Request(bytes), bytes.length);
    };
    t.equal(passes(bytes), true, `opcode ${opcode} with ${bytes} bytes`);
    t.equal(passes(bytes - 1), false, `opcode ${opcode} with ${bytes - 1} bytes`);
  }
});

t.test('a message whose count announces more data than it has is not well-formed', async (t) => {
  const check = (bytes: Buffer) => isWellFormed(new Request(bytes), bytes.length);
  const write = message({ opcode: 16 }, writeIn(0, Buffer.alloc(100)));
  t.equal(check(write), true);
  for (const size of [0, 99, 101, 0xffff_ffff]) {
    write.writeUInt32LE(size, 40 + 16);
    t.equal(check(write), false, `a WRITE of ${size} with 100 bytes`);
  }
  const forget = message(
    { opcode: 42 },
    batchForgetIn([
      [2, 1],
      [3, 1],
    ]),
  );
  t.equal(check(forget), true);
  for (const count of [3, 0x1000_0000, 0xffff_ffff]) {
    forget.writeUInt32LE(count, 40);
    t.equal(check(forget), false, `a BATCH_FORGET of ${count} with two`);
  }
});

t.test('a name ends at its NUL and within the message', async (t) => {
  const nameOf = (body: Buffer): string | null => new Request(message({ opcode: 1 }, body)).name();
  t.equal(nameOf(name('xvda')), 'xvda');
  t.equal(nameOf(name('plattenwürfel')), 'plattenwürfel');
  t.equal(nameOf(Buffer.from('xvda\0xvdb\0')), 'xvda');
  t.equal(nameOf(Buffer.from('\0x')), null, 'empty');
  t.equal(nameOf(Buffer.from('xvda')), null, 'no NUL');
  // the NUL after it belongs to an older message in the same buffer
  const longer = Buffer.concat([message({ opcode: 1 }, Buffer.from('xv')), Buffer.from('da\0')]);
  t.equal(new Request(longer).name(), null, 'NUL behind the end');
});

t.test('64-bit fields', async (t) => {
  const request = new Request(struct(48, { u64: { 0: 2 ** 53 - 1, 8: -1n, 16: 0x7fff_ffff_ffff_ffffn, 24: -86400n } }));
  t.equal(request.u64(0), Number.MAX_SAFE_INTEGER);
  t.equal(request.i64(2), -1);
  t.ok(request.u64(2) > 2 ** 63, 'no small number where bits are lost');
  t.ok(request.u64(4) > 2 ** 62);
  t.equal(request.i64(6), -86400);
});

t.test('only FORGET and BATCH_FORGET need no answer', async (t) => {
  const oneWay = Array.from({ length: 64 }, (_, opcode) => opcode).filter(isOneWay);
  t.strictSame(oneWay, [2, 42]);
});

t.test('the header of a reply', async (t) => {
  const r = new Reply(Buffer.from(new ArrayBuffer(64)));
  r.header(0x1234_5678, 0x8000_0001, -5, 0);
  t.equal(r.length, 16);
  t.strictSame(r.bytes.subarray(0, 16), reply(0x8000_0001_1234_5678n, -5));
});

t.test('attributes have the layout of the protocol', async (t) => {
  const r = new Reply(Buffer.from(new ArrayBuffer(256)));
  r.bytes.fill(0xee);
  const times = { atimeSec: 11, atimeNsec: 12, mtimeSec: -2, mtimeNsec: 999_999_999, ctimeSec: 2 ** 34, ctimeNsec: 16 };
  const [size, blocks] = [2 ** 45 + 3, 2 ** 36];
  writeAttributes(r, 4, { nodeId: 2 ** 33 + 5, size, blocks, ...times, mode: 0o100640, links: 1, uid: 7, gid: 8 });
  const expected = attr({
    ...{ ino: 2 ** 33 + 5, size, blocks, mode: 0o100640, uid: 7, gid: 8 },
    ...{ atime: [11, 12], mtime: [-2, 999_999_999], ctime: [2 ** 34, 16] },
  });
  t.strictSame(r.bytes.subarray(16 + 16, 16 + 16 + 88), expected);
  t.equal(r.bytes[16 + 15], 0xee, 'nothing before');
  t.equal(r.bytes[16 + 16 + 88], 0xee, 'nothing behind');
});

t.test('directory entries are padded to 8 and never go over the limit', async (t) => {
  const r = new Reply(Buffer.from(new ArrayBuffer(256)));
  for (const text of ['a', 'abcdefgh', 'abcdefghi']) {
    r.bytes.fill(0xee);
    const expected = dirent(9, 11, 8, text);
    const entry = { nodeId: 9, offset: 11, type: 8, name: Buffer.from(text) };
    t.equal(appendDirent(r, 8, 8 + expected.length - 1, entry), -1, 'a byte too little');
    t.ok(
      r.bytes.every((byte) => byte === 0xee),
      'nothing is written then',
    );
    t.equal(appendDirent(r, 8, 8 + expected.length, entry), 8 + expected.length);
    t.strictSame(r.bytes.subarray(16 + 8, 16 + 8 + expected.length), expected);
  }
});
