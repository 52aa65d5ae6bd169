/** The answer to each opcode, byte for byte. malformed.test.ts sends malformed messages. */
import { constants } from 'node:os';
import t, { type Test } from 'tap';
import { swapSpace } from '../../labels/swap-space.js';
import { ATTACHED_MS, type DispatchFixture, makeDispatchFixture, OWNER, plainDisk } from '../dispatch-fixture.js';
import {
  type Attr,
  attr,
  batchForgetIn,
  dirent,
  fallocateIn,
  forgetIn,
  fsyncIn,
  ioctlIn,
  lseekIn,
  message,
  name,
  openIn,
  readIn,
  releaseIn,
  reply,
  SET,
  setattrIn,
  struct,
  writeIn,
} from '../wire.js';

const { EINVAL, EIO, ENFILE, ENOENT, ENOSPC, ENOSYS, ENOTTY, ENXIO, EOPNOTSUPP, EPERM, EROFS } = constants.errno;
const DISK_BYTES = 10_000;
const [XVDA, XVDB] = [2, 3];
const BY_SLOT = 2 ** 30;
const BY_NAME = ['by-label', 'by-uuid', 'by-partlabel', 'by-partuuid'].map((name, i) => {
  return { name, nodeId: 2 ** 31 + i * 2 ** 29 };
});
const O_RDWR = 2;
const BLKGETSIZE64 = 0x80081272;

const ms = (time: number): [number, number] => [Math.floor(time / 1000), (time % 1000) * 1e6];
const ATTACHED: Pick<Attr, 'atime' | 'mtime' | 'ctime'> = {
  atime: ms(ATTACHED_MS),
  mtime: ms(ATTACHED_MS),
  ctime: ms(ATTACHED_MS),
};
const ATTR_A: Attr = { ino: XVDA, size: DISK_BYTES, blocks: 20, mode: 0o100600, ...ATTACHED };
const SINCE = ms(OWNER.sinceMs);
const ROOT_ATTR: Attr = {
  ...{ ino: 1, size: 0, blocks: 0, mode: 0o040755, nlink: 7, uid: OWNER.uid, gid: OWNER.gid },
  ...{ atime: SINCE, mtime: SINCE, ctime: SINCE },
};
const attrOut = (a: Attr): Buffer => Buffer.concat([Buffer.alloc(16), attr(a)]);
const u64 = (value: number): Buffer => struct(8, { u64: { 0: value } });

interface Ask {
  readonly opcode: number;
  readonly nodeId?: number;
  readonly body?: Buffer;
}

interface Fixture extends DispatchFixture {
  /** the bytes of xvda */
  readonly content: Buffer;
  /** Sends one request and expects exactly this reply: an errno, or a body. */
  expect(ask: Ask, expected: number | Buffer, what: string): Promise<void>;
}

/** xvda is writable, xvdb is not */
function fixtureWithFiles(t: Test): Fixture {
  const fixture = makeDispatchFixture();
  t.teardown(() => fixture.close());
  const content = Buffer.alloc(DISK_BYTES, 'abcdefg');
  fixture.addFile({ nodeId: XVDA, name: 'xvda', disk: plainDisk(content) });
  fixture.addFile({ nodeId: XVDB, name: 'xvdb', disk: plainDisk(Buffer.alloc(DISK_BYTES), true) });
  return {
    ...fixture,
    content,
    async expect({ opcode, nodeId = XVDA, body = Buffer.alloc(0) }, expected, what) {
      const unique = 0x123456n;
      const replies = await fixture.ask(message({ opcode, unique, nodeId }, body));
      const whole = typeof expected === 'number' ? reply(unique, -expected) : reply(unique, 0, expected);
      t.strictSame(
        replies.map(({ bytes }) => bytes.toString('hex')),
        [whole.toString('hex')],
        what,
      );
    },
  };
}

t.test('every opcode of the protocol has its answer', async (t) => {
  const OK = Buffer.alloc(0);
  const OPCODES: readonly (readonly [what: string, opcode: number, expected: number | Buffer, body?: Buffer])[] = [
    ['READLINK', 5, EINVAL],
    ['SYMLINK', 6, EPERM, name('a\0b')],
    ['MKNOD', 8, EPERM, Buffer.concat([Buffer.alloc(16), name('a')])],
    ['MKDIR', 9, EPERM, Buffer.concat([Buffer.alloc(8), name('a')])],
    ['UNLINK', 10, EPERM, name('xvda')],
    ['RMDIR', 11, EPERM, name('xvda')],
    ['RENAME', 12, EPERM, Buffer.concat([Buffer.alloc(8), name('xvda\0b')])],
    ['LINK', 13, EPERM, Buffer.concat([Buffer.alloc(8), name('b')])],
    ['RELEASE of a handle nobody knows', 18, OK, releaseIn(99n)],
    ['SETXATTR', 21, ENOSYS, Buffer.alloc(16)],
    ['GETXATTR', 22, ENOSYS, Buffer.concat([Buffer.alloc(8), name('security.capability')])],
    ['LISTXATTR', 23, ENOSYS, Buffer.alloc(8)],
    ['REMOVEXATTR', 24, ENOSYS, name('user.a')],
    ['FLUSH', 25, OK, Buffer.alloc(24)],
    ['OPENDIR', 27, Buffer.alloc(16), openIn(0)],
    ['RELEASEDIR', 29, OK, releaseIn(0n)],
    ['FSYNCDIR', 30, OK, fsyncIn(0n)],
    ['GETLK', 31, ENOSYS, Buffer.alloc(48)],
    ['SETLK', 32, ENOSYS, Buffer.alloc(48)],
    ['ACCESS', 34, ENOSYS, Buffer.alloc(8)],
    ['CREATE', 35, EPERM, Buffer.concat([Buffer.alloc(16), name('a')])],
    ['INTERRUPT', 36, ENOSYS, Buffer.alloc(8)],
    ['BMAP', 37, ENOSYS, Buffer.alloc(16)],
    ['DESTROY', 38, OK],
    ['POLL', 40, ENOSYS, Buffer.alloc(24)],
    ['READDIRPLUS', 44, ENOSYS, readIn(0, 4096)],
    ['RENAME2', 45, EPERM, Buffer.concat([Buffer.alloc(16), name('xvda\0b')])],
    ['COPY_FILE_RANGE', 47, ENOSYS, Buffer.alloc(56)],
    ['SYNCFS', 50, OK, Buffer.alloc(8)],
    ['TMPFILE', 51, EPERM, Buffer.concat([Buffer.alloc(16), name('a')])],
    ['STATX', 52, ENOSYS, Buffer.alloc(24)],
    ['COPY_FILE_RANGE_64', 53, ENOSYS, Buffer.alloc(56)],
    ['an opcode of the future', 999, ENOSYS],
  ];
  const fixture = fixtureWithFiles(t);
  for (const [what, opcode, expected, body] of OPCODES) {
    await fixture.expect({ opcode, ...(body && { body }) }, expected, what);
  }
});

t.test('opcodes whose ENOSYS the kernel would remember for the whole bus never get ENOSYS', async (t) => {
  const fixture = fixtureWithFiles(t);
  const asked: readonly (readonly [opcode: number, body: Buffer])[] = [
    [14, openIn(0)],
    [20, fsyncIn(0n)],
    [25, Buffer.alloc(24)],
    [27, openIn(0)],
    [30, fsyncIn(0n)],
    [35, Buffer.alloc(18)],
    [43, fallocateIn(0, 0, 10)],
    [43, fallocateIn(0x40, 0, 10)],
    [46, lseekIn(0, 3)],
  ];
  for (const nodeId of [XVDA, XVDB, 77, 1]) {
    for (const [opcode, body] of asked) {
      const replies = await fixture.ask(message({ opcode, nodeId }, body));
      t.equal(replies.length, 1);
      t.not(replies[0]?.error, -ENOSYS, `opcode ${opcode} for node ${nodeId}`);
    }
  }
});

t.test('LOOKUP', async (t) => {
  const fixture = fixtureWithFiles(t);
  const entry = Buffer.concat([struct(40, { u64: { 0: XVDA } }), attr(ATTR_A)]);
  const lookup = (nodeId: number, body: Buffer) => ({ opcode: 1, nodeId, body });
  await fixture.expect(lookup(1, name('xvda')), entry, 'a file');
  await fixture.expect(lookup(1, name('xvdc')), ENOENT, 'no such file');
  await fixture.expect(lookup(XVDA, name('xvda')), ENOENT, 'below a file');
  await fixture.expect(lookup(1, name('')), EINVAL, 'too short for a name');
  await fixture.expect(lookup(1, Buffer.from('xvda')), ENOENT, 'without its NUL');
});

t.test('GETATTR', async (t) => {
  const fixture = fixtureWithFiles(t);
  const getattr = (nodeId: number) => ({ opcode: 3, nodeId, body: Buffer.alloc(16) });
  await fixture.expect(getattr(XVDA), attrOut(ATTR_A), 'a file');
  await fixture.expect(getattr(1), attrOut(ROOT_ATTR), 'the directory');
  fixture.tree.remove(XVDA);
  await fixture.expect(getattr(XVDA), EIO, 'a file that was taken away');
});

t.test('by-slot: a directory of links to the vbds, by number', async (t) => {
  const fixture = fixtureWithFiles(t);
  fixture.addFile({ nodeId: 9, name: 'no-vdev', disk: plainDisk(Buffer.alloc(1)) });
  const directory: Attr = { ...ROOT_ATTR, ino: BY_SLOT, nlink: 2 };
  const link: Attr = { ...ROOT_ATTR, ino: BY_SLOT + XVDA, mode: 0o120777, nlink: 1, size: '../xvda'.length };
  const entry = (a: Attr) => Buffer.concat([struct(40, { u64: { 0: a.ino } }), attr(a)]);
  const ask = (opcode: number, nodeId: number, body: Buffer = Buffer.alloc(16)) => ({ opcode, nodeId, body });
  await fixture.expect(ask(1, 1, name('by-slot')), entry(directory), 'the directory');
  await fixture.expect(ask(3, BY_SLOT), attrOut(directory), 'what it is');
  await fixture.expect(ask(1, BY_SLOT, name('51712')), entry(link), 'a link');
  await fixture.expect(ask(3, BY_SLOT + XVDA), attrOut(link), 'what that is');
  await fixture.expect(ask(5, BY_SLOT + XVDA), Buffer.from('../xvda'), 'where it leads');
  const list = [
    dirent(BY_SLOT, 1, 4, '.'),
    dirent(1, 2, 4, '..'),
    dirent(BY_SLOT + XVDA, XVDA + 2, 10, '51712'),
    dirent(BY_SLOT + XVDB, XVDB + 2, 10, '51728'),
  ];
  await fixture.expect(ask(28, BY_SLOT, readIn(0, 4096)), Buffer.concat(list), 'all links');
  await fixture.expect(ask(28, BY_SLOT, readIn(2, 4096)), Buffer.concat(list.slice(2)), 'behind ..');
  await fixture.expect(ask(28, BY_SLOT, readIn(XVDA + 2, 4096)), Buffer.concat(list.slice(3)), 'and so on');
  for (const other of ['051712', '0xca00', 'xvda', '51744', '-1', '99999999999', '.', 'by-slot', '']) {
    const [answer] = await fixture.ask(message({ opcode: 1, nodeId: BY_SLOT }, name(other)));
    t.ok(answer?.error === -ENOENT || other === '', `no other name: '${other}'`);
  }
  const chmod = setattrIn(SET.mode, { u32: { 68: 0o777 } });
  for (const node of [BY_SLOT, BY_SLOT + XVDA]) await fixture.expect(ask(4, node, chmod), EPERM, 'chmod');
  await fixture.expect(ask(5, BY_SLOT + 77), ENOENT, 'the link to a vbd that is gone');
  await fixture.expect(ask(14, BY_SLOT, openIn(0)), ENOENT, 'it is no file');

  const node = fixture.tree.byId(XVDA);
  if (node !== undefined) node.leaving = true;
  await fixture.expect(ask(1, BY_SLOT, name('51712')), ENOENT, 'a vbd that is leaving has no link');
  await fixture.expect(ask(28, BY_SLOT, readIn(2, 4096)), Buffer.concat(list.slice(3)), 'none in the list');
});

t.test('SETATTR: mode, owner and times are kept; ctime is now', async (t) => {
  const fixture = fixtureWithFiles(t);
  const before = Date.now();
  const fields = { u32: { 56: 5, 60: 6, 68: 0o107644, 76: 70_000, 80: 4_294_967_294 }, u64: { 32: -3n, 40: 2 ** 33 } };
  const valid = SET.mode | SET.uid | SET.gid | SET.atime | SET.mtime;
  const bytes = message({ opcode: 4, nodeId: XVDA }, setattrIn(valid, fields));
  const [set] = await fixture.ask(bytes);
  t.equal(set?.body.length, 104);
  const [got] = await fixture.ask(message({ opcode: 3, nodeId: XVDA }, Buffer.alloc(16)));
  t.strictSame(got?.body, set?.body, 'the next GETATTR says the same');
  const ctimeSec = Number(set?.body.readBigUInt64LE(16 + 40));
  const ctimeNsec = set?.body.readUInt32LE(16 + 56) ?? 0;
  const ctimeMs = ctimeSec * 1000 + ctimeNsec / 1e6;
  t.ok(ctimeMs >= before && ctimeMs <= Date.now(), 'ctime');
  const expected: Attr = {
    ...ATTR_A,
    ...{ mode: 0o107644, uid: 70_000, gid: 4_294_967_294 },
    ...{ atime: [-3, 5], mtime: [2 ** 33, 6], ctime: [ctimeSec, ctimeNsec] },
  };
  t.strictSame(set?.body, attrOut(expected));
});

t.test('SETATTR: attributes that are not named do not change', async (t) => {
  const fixture = fixtureWithFiles(t);
  const fields = { u32: { 68: 0o777, 76: 1, 80: 2, 56: 3 }, u64: { 32: 4, 40: 5 } };
  const [set] = await fixture.ask(message({ opcode: 4, nodeId: XVDA }, setattrIn(0, fields)));
  const unchanged = attrOut(ATTR_A);
  set?.body.copy(unchanged, 16 + 40, 16 + 40, 16 + 48);
  set?.body.copy(unchanged, 16 + 56, 16 + 56, 16 + 60);
  t.strictSame(set?.body, unchanged, 'all but ctime');
});

t.test('SETATTR: the size cannot be changed (coherence rule 7)', async (t) => {
  const fixture = fixtureWithFiles(t);
  for (const size of [1, DISK_BYTES - 1, DISK_BYTES + 1, 2 ** 53, 0x8000_0000_0000_0000n]) {
    const body = setattrIn(SET.size | SET.mode, { u64: { 16: size }, u32: { 68: 0o777 } });
    await fixture.expect({ opcode: 4, body }, EPERM, `${size}`);
  }
  t.equal(fixture.ledger.attributes(0).mode, 0o600, 'a refused request changes nothing else');
  const [same] = await fixture.ask(
    message({ opcode: 4, nodeId: XVDA }, setattrIn(SET.size, { u64: { 16: DISK_BYTES } })),
  );
  t.equal(same?.error, 0);
  const empty = setattrIn(SET.size, { u64: { 16: 0 } });
  const [ignored] = await fixture.ask(message({ opcode: 4, nodeId: XVDA }, empty));
  t.equal(ignored?.error, 0, 'to be emptied');
  t.equal(ignored?.body.readBigUInt64LE(16 + 8), BigInt(DISK_BYTES), 'is ignored: the answer has the true size');
  await fixture.expect({ opcode: 4, nodeId: XVDB, body: empty }, EROFS, 'and refused for a read-only disk');
});

t.test('by-label: a directory of links to the files that carry a label', async (t) => {
  const fixture = fixtureWithFiles(t);
  const XVDC = 4;
  const bytes = swapSpace('A /o');
  fixture.addFile({ nodeId: XVDC, name: 'xvdc', disk: plainDisk(bytes) });
  const [byLabel, byUuid] = BY_NAME.map(({ nodeId }) => nodeId) as [number, number];
  const ask = (opcode: number, nodeId: number, body: Buffer = Buffer.alloc(16)) => ({ opcode, nodeId, body });
  const directory: Attr = { ...ROOT_ATTR, ino: byLabel, nlink: 2 };
  const link: Attr = { ...ROOT_ATTR, ino: byLabel + XVDC, mode: 0o120777, nlink: 1, size: '../xvdc'.length };
  const entry = (a: Attr) => Buffer.concat([struct(40, { u64: { 0: a.ino ?? 0 } }), attr(a)]);
  const linkName = 'A\\x20\\x2fo';
  await fixture.expect(ask(1, 1, name('by-label')), entry(directory), 'the directory');
  await fixture.expect(ask(3, byLabel), attrOut(directory), 'what it is');
  await fixture.expect(ask(1, byLabel, name(linkName)), entry(link), 'a link');
  await fixture.expect(ask(3, byLabel + XVDC), attrOut(link), 'what that is');
  await fixture.expect(ask(5, byLabel + XVDC), Buffer.from('../xvdc'), 'where it leads');
  const list = [dirent(byLabel, 1, 4, '.'), dirent(1, 2, 4, '..'), dirent(byLabel + XVDC, XVDC + 2, 10, linkName)];
  await fixture.expect(ask(28, byLabel, readIn(0, 4096)), Buffer.concat(list), 'all links');
  await fixture.expect(ask(28, byLabel, readIn(XVDC + 2, 4096)), Buffer.alloc(0), 'behind the last');
  for (const other of ['A /o', 'A\\x20\\x2FO', 'xvdc', '.', '..', '']) {
    const [answer] = await fixture.ask(message({ opcode: 1, nodeId: byLabel }, name(other)));
    t.ok([-ENOENT, -EINVAL].includes(answer?.error ?? 0), `no link ${other}`);
  }
  await fixture.expect(ask(28, byUuid, readIn(2, 4096)), Buffer.alloc(0), 'no UUID');
  await fixture.expect(ask(4, byLabel + XVDC, setattrIn(SET.mode, { u32: { 68: 0o777 } })), EPERM, 'chmod');
  await fixture.expect(ask(14, byLabel, openIn(0)), ENOENT, 'it is no file');
  // a write tells that the disk must be read anew
  const fresh = Buffer.alloc(512);
  swapSpace('other').copy(fresh, 0, 1024);
  await fixture.expect({ opcode: 16, nodeId: XVDC, body: writeIn(1024, fresh) }, u64(512), 'a write');
  await fixture.expect(ask(1, byLabel, name('other')), entry(link), 'the new name');
  await fixture.expect(ask(1, byLabel, name(linkName)), ENOENT, 'and not the old one');
});

t.test('SETATTR of the directory is refused, like every change of it', async (t) => {
  const fixture = fixtureWithFiles(t);
  const body = setattrIn(SET.mode, { u32: { 68: 0o777 } });
  await fixture.expect({ opcode: 4, nodeId: 1, body }, EPERM, 'chmod');
});

t.test('OPEN: the handle is the unique; a repeated OPEN gets the same handle', async (t) => {
  const fixture = fixtureWithFiles(t);
  // DIRECT_IO, NOFLUSH, PARALLEL_DIRECT_WRITES
  const openOut = (fh: bigint): Buffer => struct(16, { u64: { 0: fh }, u32: { 8: 1 | 32 | 64 } });
  const ask = (unique: bigint) => fixture.ask(message({ opcode: 14, unique, nodeId: XVDA, pid: 42 }, openIn(O_RDWR)));
  const [first] = await ask(0x70n);
  t.strictSame(first?.bytes, reply(0x70n, 0, openOut(0x70n)));
  const [again] = await ask(0x8000_0000_0000_0070n);
  t.strictSame(again?.bytes, reply(0x8000_0000_0000_0070n, 0, openOut(0x70n)), 'sent again by the kernel');
  t.strictSame([...fixture.ledger.countHandles()], [[XVDA, 1]]);
  t.strictSame(fixture.ledger.handleAt(0), { fh: 0x70, nodeId: XVDA, pid: 42, flags: O_RDWR });
  await fixture.expect({ opcode: 18, body: releaseIn(0x70n) }, Buffer.alloc(0), 'RELEASE');
  t.strictSame([...fixture.ledger.countHandles()], []);
});

t.test('OPEN: refusals', async (t) => {
  const fixture = fixtureWithFiles(t);
  const [O_RDONLY, O_WRONLY, O_TRUNC] = [0, 1, 0o1000];
  const open = (nodeId: number, flags: number) => ({ opcode: 14, nodeId, body: openIn(flags) });
  for (const flags of [O_WRONLY, O_RDWR, O_RDONLY | O_TRUNC, O_RDWR | O_TRUNC]) {
    await fixture.expect(open(XVDB, flags), EROFS, `read-only, flags ${flags}`);
  }
  await fixture.expect(open(XVDA, O_RDWR | O_TRUNC), EPERM, 'O_TRUNC, which only an older mount sends');
  await fixture.expect(open(XVDA, O_RDONLY | O_TRUNC), EPERM, 'O_TRUNC for reading');
  await fixture.expect(open(77, O_RDONLY), ENOENT, 'no such node');
  t.equal(fixture.ledger.countHandles().size, 0, 'no handle is left');
});

t.test('OPEN: ENFILE while all places for handles are taken', async (t) => {
  const fixture = fixtureWithFiles(t);
  const MAX_HANDLES = 32768;
  const bytes = message({ opcode: 14, nodeId: XVDA }, openIn(0));
  for (let i = 1; i <= MAX_HANDLES; i++) {
    bytes.writeBigUInt64LE(BigInt(2 * i), 8);
    fixture.dispatcher.dispatch(0, bytes);
  }
  const opened = await fixture.ask(message({ opcode: 3, nodeId: 1 }, Buffer.alloc(16)));
  t.equal(opened.filter(({ error }) => error !== 0).length, 0);
  await fixture.expect({ opcode: 14, body: openIn(0) }, ENFILE, 'one more');
  await fixture.ask(message({ opcode: 18, nodeId: XVDA }, releaseIn(6n)));
  const [again] = await fixture.ask(message({ opcode: 14, nodeId: XVDA, unique: 8_000_000n }, openIn(0)));
  t.equal(again?.error, 0);
});

/** behind by-slot */
const CURSOR = 2 ** 30 + 2;

t.test('READDIR: order, cursors, files that are leaving, and any limit', async (t) => {
  const fixture = fixtureWithFiles(t);
  fixture.addFile({ nodeId: 9, name: 'a-name-that-is-longer', disk: plainDisk(Buffer.alloc(1)) });
  const all = [
    dirent(1, 1, 4, '.'),
    dirent(1, 2, 4, '..'),
    dirent(XVDA, XVDA + 2, 8, 'xvda'),
    dirent(XVDB, XVDB + 2, 8, 'xvdb'),
    dirent(9, 11, 8, 'a-name-that-is-longer'),
    dirent(BY_SLOT, CURSOR, 4, 'by-slot'),
    ...BY_NAME.map(({ name, nodeId }, i) => dirent(nodeId, CURSOR + 1 + i, 4, name)),
  ];
  const list = (cursor: number | bigint, size: number) => ({ opcode: 28, nodeId: 1, body: readIn(cursor, size) });
  await fixture.expect(list(0, 4096), Buffer.concat(all), 'all');
  await fixture.expect(list(1, 4096), Buffer.concat(all.slice(1)), 'behind .');
  await fixture.expect(list(2, 4096), Buffer.concat(all.slice(2)), 'behind ..');
  await fixture.expect(list(XVDA + 2, 4096), Buffer.concat(all.slice(3)), 'behind xvda');
  for (const end of [11, 12]) await fixture.expect(list(end, 4096), Buffer.concat(all.slice(5)), `${end}`);
  for (const [i, end] of [CURSOR, CURSOR + 1].entries()) {
    await fixture.expect(list(end, 4096), Buffer.concat(all.slice(6 + i)), `behind by-slot: ${end}`);
  }
  const last = CURSOR + BY_NAME.length;
  t.ok(last < 2 ** 31, 'a 32-bit program can read the directory');
  for (const end of [last, 2 ** 40, 0x7fff_ffff_ffff_ffffn, 0xffff_ffff_ffff_ffffn]) {
    await fixture.expect(list(end, 4096), Buffer.alloc(0), `behind the last: ${end}`);
  }
  const whole = Buffer.concat(all);
  for (let size = 0; size <= whole.length; size++) {
    const [answer] = await fixture.ask(message({ opcode: 28 }, readIn(0, size)));
    let fits = 0;
    for (const entry of all) {
      if (fits + entry.length > size) break;
      fits += entry.length;
    }
    if (!answer?.body.equals(whole.subarray(0, fits))) t.fail(`a limit of ${size} bytes`);
  }
  const node = fixture.tree.byId(XVDA);
  t.ok(node);
  if (node) node.leaving = true;
  await fixture.expect(list(2, 4096), Buffer.concat(all.slice(3)), 'what leaves is not listed');
});

t.test('STATFS', async (t) => {
  const fixture = fixtureWithFiles(t);
  const blocks = [...fixture.tree.after(0)].reduce((sum, { file }) => sum + Math.ceil(file.disk.size / 4096), 0);
  const body = struct(80, { u32: { 0: blocks, 24: 2, 40: 4096, 44: 255, 48: 4096 } });
  await fixture.expect({ opcode: 17, nodeId: 1 }, body, 'as many blocks as its vbds have, and two files');
});

t.test('IOCTL answers only what FUSE can transport', async (t) => {
  const fixture = fixtureWithFiles(t);
  const ioctl = (cmd: number, outSize: number, nodeId = XVDA) => ({ opcode: 39, nodeId, body: ioctlIn(cmd, outSize) });
  const answer = Buffer.concat([Buffer.alloc(16), u64(DISK_BYTES)]);
  await fixture.expect(ioctl(BLKGETSIZE64, 8), answer, 'BLKGETSIZE64');
  await fixture.expect(ioctl(BLKGETSIZE64, 4), ENOTTY, 'with too little room');
  await fixture.expect(ioctl(0x80081270, 8), struct(20, { u32: { 16: 4096 } }), 'BLKBSZGET: an int');
  await fixture.expect(ioctl(0x80081270, 8, 1), ENOTTY, 'BLKBSZGET of the directory');
  await fixture.expect(ioctl(0x1268, 0), ENOTTY, 'BLKSSZGET');
  await fixture.expect(ioctl(BLKGETSIZE64, 8, 1), ENOTTY, 'of the directory');
});

t.test('READ and WRITE of a disk that is not a window', async (t) => {
  const fixture = fixtureWithFiles(t);
  const { content } = fixture;
  const read = (offset: number | bigint, size: number) => ({ opcode: 15, body: readIn(offset, size) });
  const write = (offset: number | bigint, data: string) => ({ opcode: 16, body: writeIn(offset, Buffer.from(data)) });
  await fixture.expect(read(7, 21), Buffer.from('abcdefg'.repeat(3)), 'inside');
  await fixture.expect(read(DISK_BYTES - 3, 4096), content.subarray(-3), 'across the end');
  for (const beyond of [DISK_BYTES, 2 ** 53 - 1, 2n ** 53n + 2n, 2n ** 63n - 1n, 2n ** 64n - 1n]) {
    await fixture.expect(read(beyond, 4096), Buffer.alloc(0), `READ at ${beyond}`);
    await fixture.expect(write(beyond, 'x'), ENOSPC, `WRITE at ${beyond}`);
  }
  await fixture.expect(read(0, 0), Buffer.alloc(0), 'of nothing');
  await fixture.expect(write(8, 'XYZ'), u64(3), 'WRITE inside');
  t.equal(content.toString('latin1', 6, 13), 'gaXYZef');
  await fixture.expect(write(DISK_BYTES - 2, 'hello'), u64(2), 'WRITE across the end');
  t.equal(content.toString('latin1', DISK_BYTES - 2), 'he');
  const longest = await fixture.ask(message({ opcode: 15, nodeId: XVDA }, readIn(0, 0xffff_ffff)));
  t.strictSame(longest[0]?.body, content, 'an absurd size');
  await fixture.expect({ ...write(0, 'x'), nodeId: XVDB }, EROFS, 'read-only');
  await fixture.expect({ ...read(0, 1), nodeId: 77 }, EIO, 'no such node');
});

t.test('a write moves mtime and ctime', async (t) => {
  const fixture = fixtureWithFiles(t);
  const before = Date.now();
  for (const [what, bytes] of [
    ['WRITE', message({ opcode: 16, nodeId: XVDA }, writeIn(0, Buffer.from('x')))],
    ['FALLOCATE', message({ opcode: 43, nodeId: XVDA }, fallocateIn(3, 0, 5))],
  ] as const) {
    fixture.ledger.setTime(0, 'mtime', 1000, 0);
    await fixture.ask(bytes);
    const { mtimeSec, ctimeSec, atimeSec } = fixture.ledger.attributes(0);
    t.ok(mtimeSec >= Math.floor(before / 1000), `mtime after ${what}`);
    t.equal(ctimeSec, mtimeSec);
    t.equal(atimeSec, ATTACHED.atime[0]);
  }
});

t.test('FALLOCATE of a disk that is not a window', async (t) => {
  const fixture = fixtureWithFiles(t);
  const { content } = fixture;
  const ask = (mode: number, offset: number | bigint, length: number | bigint, nodeId = XVDA) => ({
    opcode: 43,
    nodeId,
    body: fallocateIn(mode, offset, length),
  });
  for (const mode of [0, 1]) {
    await fixture.expect(ask(mode, 0, DISK_BYTES), EOPNOTSUPP, `mode ${mode}`);
    await fixture.expect(ask(mode, 1, DISK_BYTES), ENOSPC, `mode ${mode} beyond the end`);
    await fixture.expect(ask(mode, 2n ** 62n, 2n ** 62n), ENOSPC, `mode ${mode} far beyond`);
    await fixture.expect(ask(mode, 0, 1, XVDB), EROFS, `mode ${mode} read-only`);
  }
  for (const mode of [0x03, 0x10, 0x11]) {
    content.fill('x');
    await fixture.expect(ask(mode, 5, 3), Buffer.alloc(0), `mode ${mode}`);
    t.equal(content.toString('latin1', 4, 9), 'x\0\0\0x');
    await fixture.expect(ask(mode, DISK_BYTES - 2, 2n ** 62n), Buffer.alloc(0), `mode ${mode} to the end`);
    t.equal(content.toString('latin1', DISK_BYTES - 3), 'x\0\0');
    await fixture.expect(ask(mode, 2n ** 62n, 4), Buffer.alloc(0), `mode ${mode} beyond the end`);
    await fixture.expect(ask(mode, 0, 1, XVDB), EROFS, `mode ${mode} read-only`);
  }
  for (const mode of [0x02, 0x08, 0x20, 0x40, 0xffff_ffff]) {
    await fixture.expect(ask(mode, 0, 4096), EOPNOTSUPP, `mode ${mode}`);
  }
});

t.test('LSEEK of a disk that is not a window', async (t) => {
  const fixture = fixtureWithFiles(t);
  const seek = (offset: number | bigint, whence: number) => ({ opcode: 46, body: lseekIn(offset, whence) });
  await fixture.expect(seek(17, 3), u64(17), 'SEEK_DATA');
  await fixture.expect(seek(17, 4), u64(DISK_BYTES), 'SEEK_HOLE');
  for (const beyond of [DISK_BYTES, 2n ** 53n + 2n, 2n ** 63n, 2n ** 64n - 1n]) {
    await fixture.expect(seek(beyond, 3), ENXIO, `from ${beyond}`);
  }
  await fixture.expect(seek(0, 2), EINVAL, 'SEEK_END is not the server’s');
});

t.test('FSYNC: a failed flush reaches every handle once (coherence rule 5)', async (t) => {
  const fixture = fixtureWithFiles(t);
  const open = (unique: bigint) => fixture.ask(message({ opcode: 14, unique, nodeId: XVDA }, openIn(O_RDWR)));
  const fsync = (fh: bigint) => ({ opcode: 20, body: fsyncIn(fh) });
  const OK = Buffer.alloc(0);
  await open(10n);
  await open(12n);
  await fixture.expect(fsync(10n), OK, 'nothing has failed');
  // a thread's flush failed
  fixture.ledger.noteFlushError(0, ENOSPC);
  await open(14n);
  await fixture.expect(fsync(10n), ENOSPC, 'the first handle');
  await fixture.expect(fsync(10n), OK, 'told already');
  await fixture.expect(fsync(12n), ENOSPC, 'the second handle');
  await fixture.expect(fsync(12n), OK, 'told already');
  await fixture.expect(fsync(14n), OK, 'opened after it failed');
  await fixture.expect(fsync(99n), ENOSPC, 'a handle nobody knows is told');
});

t.test('FSYNC of a disk that is not a window flushes it, and notes a failure', async (t) => {
  const fixture = fixtureWithFiles(t);
  let flushes = 0;
  const failing = plainDisk(Buffer.alloc(10));
  failing.flush = async () => {
    flushes++;
    throw Object.assign(new Error('flush'), { errno: ENOSPC });
  };
  fixture.addFile({ nodeId: 5, name: 'xvdd', disk: failing });
  await fixture.ask(message({ opcode: 14, unique: 20n, nodeId: 5 }, openIn(O_RDWR)));
  await fixture.expect({ opcode: 20, nodeId: 5, body: fsyncIn(20n) }, ENOSPC, 'fails');
  t.equal(flushes, 1);
  t.strictSame(fixture.ledger.flushErrors(3), { count: 1, errno: ENOSPC });
  failing.flush = async () => {};
  await fixture.expect({ opcode: 20, nodeId: 5, body: fsyncIn(20n) }, Buffer.alloc(0), 'then succeeds');
});

t.test('FSYNC: a failed flush of one partition reaches the handles of all files of its vbd', async (t) => {
  const fixture = fixtureWithFiles(t);
  const [first, second] = [plainDisk(Buffer.alloc(10)), plainDisk(Buffer.alloc(10))];
  first.flush = async () => {
    throw Object.assign(new Error('flush'), { errno: ENOSPC });
  };
  fixture.addFile({ nodeId: 5, name: 'xvdd1', disk: first, flushIndex: 9 });
  fixture.addFile({ nodeId: 6, name: 'xvdd2', disk: second, flushIndex: 9 });
  for (const nodeId of [5, 6])
    await fixture.ask(message({ opcode: 14, unique: BigInt(nodeId) * 10n, nodeId }, openIn(2)));
  await fixture.expect({ opcode: 20, nodeId: 5, body: fsyncIn(50n) }, ENOSPC, 'it fails');
  await fixture.expect({ opcode: 20, nodeId: 6, body: fsyncIn(60n) }, ENOSPC, 'the kernel tells it nobody else');
  await fixture.expect({ opcode: 20, nodeId: 6, body: fsyncIn(60n) }, Buffer.alloc(0), 'told already');
});

t.test(
  'WRITE with O_DSYNC: a failure counts as a failed flush, because it may have taken the error of one',
  async (t) => {
    const fixture = fixtureWithFiles(t);
    let errno = EIO;
    const failing = plainDisk(Buffer.alloc(10));
    failing.write = async () => {
      throw Object.assign(new Error('write'), { errno });
    };
    fixture.addFile({ nodeId: 5, name: 'xvdd', disk: failing });
    const write = (flags: number) => ({ opcode: 16, nodeId: 5, body: writeIn(0, Buffer.from('x'), flags) });
    const O_DSYNC = 0o10000;
    await fixture.expect(write(0), EIO, 'a plain write');
    t.equal(fixture.ledger.flushErrors(3).count, 0);
    await fixture.expect(write(O_DSYNC), EIO, 'a durable write');
    t.strictSame(fixture.ledger.flushErrors(3), { count: 1, errno: EIO });
    errno = EROFS;
    await fixture.expect(write(O_DSYNC), EROFS, 'nothing was tried');
    errno = ENOSPC;
    const beyond = { opcode: 16, nodeId: 5, body: writeIn(10, Buffer.from('x'), O_DSYNC) };
    await fixture.expect(beyond, ENOSPC, 'nor beyond the end');
    t.equal(fixture.ledger.flushErrors(3).count, 1);
  },
);

t.test('FORGET: a file is forgotten when all answered lookups were returned', async (t) => {
  const fixture = fixtureWithFiles(t);
  const lookup = (file: string) => fixture.ask(message({ opcode: 1, nodeId: 1 }, name(file)));
  const forget = (nodeId: number, count: number | bigint) =>
    fixture.ask(message({ opcode: 2, nodeId }, forgetIn(count)), 0);
  await lookup('xvda');
  await lookup('xvda');
  await lookup('xvda');
  await lookup('xvdb');
  t.equal((await forget(XVDA, 2)).length, 0, 'no reply');
  t.strictSame(fixture.forgotten, []);
  await forget(XVDA, 1);
  t.strictSame(fixture.forgotten, [XVDA]);
  await forget(77, 1);
  t.strictSame(fixture.forgotten, [XVDA], 'a node nobody knows');
  await lookup('xvda');
  const both = batchForgetIn([
    [XVDB, 1],
    [XVDA, 1],
  ]);
  t.equal((await fixture.ask(message({ opcode: 42 }, both), 0)).length, 0, 'no reply');
  t.strictSame(fixture.forgotten, [XVDA, XVDB, XVDA]);
});

t.test('a file that is leaving can be neither found nor opened, but open handles still work', async (t) => {
  const fixture = fixtureWithFiles(t);
  const node = fixture.tree.byId(XVDA);
  if (node) node.leaving = true;
  await fixture.expect({ opcode: 1, nodeId: 1, body: name('xvda') }, ENOENT, 'LOOKUP');
  await fixture.expect({ opcode: 14, body: openIn(0) }, ENOENT, 'OPEN');
  await fixture.expect({ opcode: 15, body: readIn(0, 3) }, Buffer.from('abc'), 'READ');
  if (node) node.leaving = false;
  const [found] = await fixture.ask(message({ opcode: 1, nodeId: 1 }, name('xvda')));
  t.equal(found?.error, 0);
});

t.test('I/O of a paused file waits, in order, and nothing else does', async (t) => {
  const fixture = fixtureWithFiles(t);
  await fixture.dispatcher.pause(XVDA);
  const write = (unique: bigint, text: string) =>
    fixture.ask(message({ opcode: 16, unique, nodeId: XVDA }, writeIn(0, Buffer.from(text))), 0);
  t.strictSame(await write(2n, 'first'), []);
  t.strictSame(await write(4n, 'second'), []);
  t.equal(fixture.content.toString('latin1', 0, 3), 'abc', 'nothing is written');
  const [attributes] = await fixture.ask(message({ opcode: 3, nodeId: XVDA }, Buffer.alloc(16)));
  t.equal(attributes?.error, 0, 'attributes are answered');
  await fixture.expect({ opcode: 15, nodeId: XVDB, body: readIn(0, 1) }, Buffer.alloc(1), 'another file');
  fixture.dispatcher.resume(XVDA);
  const replies = await fixture.ask(message({ opcode: 15, unique: 6n, nodeId: XVDA }, readIn(0, 7)), 3);
  t.strictSame(
    replies.map(({ unique, error }) => [unique, error]),
    [
      [2n, 0],
      [4n, 0],
      [6n, 0],
    ],
  );
  t.equal(replies[2]?.body.toString(), 'secondg');
});

t.test('each reply has the unique of its request', async (t) => {
  const fixture = fixtureWithFiles(t);
  for (const unique of [2n, 2n ** 32n, 2n ** 53n + 2n, 2n ** 63n + 2n, 2n ** 64n - 2n]) {
    const [answer] = await fixture.ask(message({ opcode: 3, unique, nodeId: XVDA }, Buffer.alloc(16)));
    t.equal(answer?.unique, unique);
  }
});

t.test('when all requests are answered, no work record is left', async (t) => {
  const fixture = fixtureWithFiles(t);
  await fixture.ask(message({ opcode: 15, nodeId: XVDA }, readIn(0, 10)));
  await fixture.ask(message({ opcode: 2, nodeId: XVDA }, forgetIn(1)), 0);
  await fixture.ask(message({ opcode: 99, nodeId: XVDA }));
  await fixture.ask(Buffer.alloc(3), 0);
  t.strictSame(fixture.ledger.takeInFlight(), []);
});
