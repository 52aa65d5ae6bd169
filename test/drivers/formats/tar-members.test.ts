import fc from 'fast-check';
import t from 'tap';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import tar from '../../../drivers/tar/index.js';
import { type Member, visitMembers } from '../../../drivers/tar/members.js';
import { parsePax } from '../../../drivers/tar/pax.js';
import { paxHeader, tarEnd, tarHeader, tarMember } from '../images/tar.js';
import { diskOf, mutated, randomImage, refusesOrServes, seed } from './image-bytes.js';

const archive = (...parts: Buffer[]): Disk => diskOf(Buffer.concat([...parts, tarEnd]));

async function list(image: Disk): Promise<Member[]> {
  const members: Member[] = [];
  await visitMembers(image, (member) => members.push(member));
  return members;
}

const named = async (...parts: Buffer[]): Promise<[string, number, number][]> =>
  (await list(archive(...parts))).map(({ name, start, size }) => [name, start, size]);

t.test('members of each kind, and where their bytes are', async (t) => {
  const members = await list(
    archive(
      tarHeader({ name: 'dir/', type: '5' }),
      tarMember('dir/a.img', 'some bytes'),
      tarHeader({ name: 'link', type: '1', size: 10, link: 'dir/a.img' }),
      tarHeader({ name: 'symbolic', type: '2', size: 10, link: 'dir/a.img' }),
      tarMember('old', 'x', { type: '\0', kind: 'v7' }),
      tarMember('olddir/', '', { type: '\0', kind: 'v7' }),
      tarMember('unknown', 'data', { type: 'Z' }),
      tarMember('whole', 'y', { type: '7' }),
    ),
  );
  t.same(members, [
    { name: 'dir/', kind: 'other', start: 512, size: 0 },
    { name: 'dir/a.img', kind: 'file', start: 1024, size: 10 },
    { name: 'link', kind: 'link', start: 2048, size: 0 },
    { name: 'symbolic', kind: 'other', start: 2560, size: 0 },
    { name: 'old', kind: 'file', start: 3072, size: 1 },
    { name: 'olddir/', kind: 'other', start: 4096, size: 0 },
    { name: 'unknown', kind: 'other', start: 4608, size: 4 },
    { name: 'whole', kind: 'file', start: 5632, size: 1 },
  ]);
});

t.test('long names', async (t) => {
  const long = 'n'.repeat(300);
  t.same(await named(tarMember('b', 'x', { prefix: 'a/dir' })), [['a/dir/b', 512, 1]], 'ustar');
  t.same(await named(tarMember('b', 'x', { prefix: 'a/dir', kind: 'gnu' })), [['b', 512, 1]], 'GNU has no prefix');
  const gnu = [
    tarMember('././@LongLink', `${long}\0`, { type: 'L', kind: 'gnu' }),
    tarMember(long, 'x', { kind: 'gnu' }),
  ];
  t.same(
    await named(...gnu, tarMember('c', '')),
    [
      [long, 1536, 1],
      ['c', 2560, 0],
    ],
    'of one member only',
  );
  t.same(await named(paxHeader({ path: long, mtime: '1.5' }), tarMember('b', 'x')), [[long, 1536, 1]], 'pax');
  t.same(await named(paxHeader({ path: 'ä\n=b' }), tarMember('b', 'x')), [['ä\n=b', 1536, 1]], 'with any characters');
  const shared = [paxHeader({ comment: 'x' }, 'g'), tarMember('b', 'x'), tarMember('c', 'x')];
  t.same(
    await named(...shared),
    [
      ['b', 1536, 1],
      ['c', 2560, 1],
    ],
    'a shared header',
  );
});

t.test('sizes', async (t) => {
  t.same(await named(tarMember('a', 'xyz', { binarySize: true })), [['a', 512, 3]], 'a binary number');
  const sized = tarMember('a', 'xyz', { size: 0 });
  t.same(
    await named(paxHeader({ size: '3' }), sized, tarMember('b', '')),
    [
      ['a', 1536, 3],
      ['b', 2560, 0],
    ],
    'pax',
  );
  const spaces = (block: Buffer): void => void block.write('         3  ', 124, 'latin1');
  t.same(await named(tarMember('a', 'xyz', { change: spaces })), [['a', 512, 3]], 'with spaces');
  t.same(await named(tarMember('\xe4\xf6', 'x', { signed: true })), [['äö', 512, 1]], 'a checksum of signed bytes');
});

t.test('an archive without blocks of zeros ends at its end', async (t) => {
  const bytes = tarMember('a', 'xyz');
  t.equal((await list(diskOf(bytes))).length, 1);
  t.equal((await list(diskOf(bytes.subarray(0, 515)))).length, 1, 'also without the rest of its last block');
  await t.rejects(list(diskOf(bytes.subarray(0, 514))), { code: 'FAILED', message: /ends at byte 515/ });
});

t.test('what is damaged is refused', async (t) => {
  const refuse = (message: RegExp, ...parts: Buffer[]) =>
    t.rejects(list(archive(...parts)), { code: 'FAILED', message }, String(message));
  const after = tarHeader({ name: 'a' });
  const flip = (at: number, by = 1): Buffer => {
    const block = tarMember('b', '');
    block.writeUInt8(block.readUInt8(at) ^ by, at);
    return block;
  };
  for (const at of [0, 99, 124, 156, 300, 511]) await refuse(/checksum of the header at byte 512/, after, flip(at));
  const field = (text: string) => tarHeader({ name: 'a', change: (block) => void block.write(text, 124, 'latin1') });
  for (const text of ['9', '-1', '0x10', '1e3']) await refuse(/not a number/, field(text));
  await refuse(/not a number, or too large/, field('\xff'.repeat(12)));
  await refuse(/not a number, or too large/, tarHeader({ name: 'a', size: 2n ** 53n, binarySize: true }));
  await refuse(/ends at byte/, tarHeader({ name: 'a', size: 2n ** 53n - 1n, binarySize: true }));
  await refuse(/ends at byte/, tarHeader({ name: 'a', size: 0o77777777777 }));
  await refuse(/more than 1 MiB/, tarHeader({ name: 'a', size: (1 << 20) + 1, type: 'x' }), Buffer.alloc(2 << 20, 1));
  await refuse(/ends at byte/, tarHeader({ name: 'a', size: 1 << 20, type: 'L' }));
  const endless = Buffer.alloc(512, 1);
  const extended = (block: Buffer): void => void block.writeUInt8(1, 482);
  await t.rejects(
    list(diskOf(Buffer.concat([tarHeader({ name: 'a', type: 'S', change: extended }), endless, endless]))),
    {
      code: 'FAILED',
    },
  );
});

t.test('records of a pax header', async (t) => {
  t.same(parsePax(Buffer.alloc(0)), {});
  t.same(parsePax(Buffer.from('10 path=x\n\0\0')), { path: 'x' });
  t.same(parsePax(Buffer.from('9 size=5\n9 ctime=\n')), { size: 5 });
  for (const text of [
    'x',
    '10 path=x',
    '8 path=x\n',
    '11 path=x\n',
    '5 abc\n',
    '0 a=b\n',
    '-1 a=b\n',
    ' a=b\n',
    '2 \n',
    '99999999999 a=b\n',
    '9 size=x\n',
    '27 size=99999999999999999999\n',
  ]) {
    t.throws(() => parsePax(Buffer.from(text)), { code: 'FAILED', message: /pax/ }, text);
  }
});

const context = { files: {}, memory: null, state: null, readOnly: false, isRepaired: true };
const openTar = (image: Disk, options: Readonly<Record<string, string>> = {}) =>
  tar.open({ ...context, disks: { file: image }, options });

t.test('which member is the disk', async (t) => {
  const ovf = tarMember('a.ovf', '<xml/>');
  const one = [ovf, tarMember('./a-disk1.VMDK', 'vmdk'), tarMember('a.mf', 'sums')];
  t.equal((await openTar(archive(...one))).size, 4, 'the only one with the name of an image');
  t.equal((await openTar(archive(...one), { member: 'a-disk1.VMDK' })).size, 4, 'with or without ./');
  t.equal((await openTar(archive(...one), { member: './a.ovf' })).size, 6);
  const many = Array.from({ length: 15 }, (_, i) => tarMember(`disk${i}.img`, 'x'));
  await t.rejects(openTar(archive(ovf, ...many)), {
    code: 'USAGE',
    message: 'the archive has 15 members with the name of a disk image',
    hint: /^name one with --option member=NAME: 'disk0.img', .*'disk9.img' and 5 more$/,
  });
  await t.rejects(openTar(archive(ovf)), { code: 'USAGE', message: /no member/, hint: /'a.ovf'/ });
  await t.rejects(openTar(archive(ovf), { member: 'b' }), { code: 'NOT_FOUND', message: /has no 'b'/ });
  const twice = archive(ovf, tarMember('./a.ovf', 'newer'));
  await t.rejects(openTar(twice, { member: 'a.ovf' }), { code: 'USAGE', message: /'a.ovf' 2 times/ });
  await t.rejects(openTar(archive(tarMember('a.img', ''))), { code: 'USAGE', message: /is empty/ });
  await t.rejects(openTar(archive(tarHeader({ name: 'd.img/', type: '5' })), { member: 'd.img/' }), {
    message: /not a file/,
  });
  const link = archive(tarMember('a', 'x'), tarHeader({ name: 'b.img', type: '1', link: 'a' }));
  await t.rejects(openTar(link), { code: 'UNSUPPORTED', message: /'b.img' is a hard link/ });
  await t.rejects(openTar(diskOf(Buffer.alloc(2048))), { code: 'USAGE', message: 'it is not a tar archive' });
  await t.rejects(openTar(diskOf(Buffer.alloc(100, 1))), { code: 'USAGE', message: 'it is not a tar archive' });
  t.throws(() => tar.check({ members: 'a' }), { code: 'USAGE', hint: /member/ });
  t.throws(() => tar.check({ member: '' }), { code: 'USAGE' });
});

t.test('a million members take no memory', async (t) => {
  const count = 1_000_000;
  const last = Buffer.concat([tarMember('a.img', 'x'), tarEnd]);
  const end = count * 512;
  const same = Buffer.alloc(1 << 17, tarMember('m.txt', ''));
  // the archive is in no memory
  const image = frontDisk(
    {
      size: end + last.length,
      async read(buffer, offset) {
        const before = Math.max(0, Math.min(buffer.length, end - offset));
        buffer.set(same.subarray(offset % 512, (offset % 512) + before));
        if (before < buffer.length)
          buffer.set(last.subarray(offset + before - end, offset + buffer.length - end), before);
      },
      async close() {},
    },
    { readOnly: true },
  );
  const before = process.memoryUsage().rss;
  t.equal((await openTar(image)).size, 1);
  const grownMiB = (process.memoryUsage().rss - before) / 2 ** 20;
  t.ok(grownMiB < 100, `${grownMiB} MiB more`);
});

t.test(`hostile archives (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const check = async (bytes: Buffer): Promise<void> => {
    if (await refusesOrServes(() => openTar(diskOf(bytes)), new Map([[7, bytes.length]]))) served += 1;
  };
  const member = fc.record({
    name: fc.constantFrom('a.img', 'b', 'c/', '', 'n'.repeat(100)),
    type: fc.constantFrom('0', '0', '\0', '1', '2', '5', 'x', 'g', 'L', 'K', 'S', 'Z'),
    kind: fc.constantFrom('posix', 'gnu', 'v7'),
    bytes: fc.oneof(
      fc.constantFrom(
        '',
        'some bytes',
        '10 path=x\n',
        '9 size=5\n',
        '25 size=9007199254740991\n',
        '22 GNU.sparse.major=1\n',
      ),
      fc.string({ maxLength: 600 }),
    ),
    size: fc.option(fc.oneof(fc.nat({ max: 5000 }), fc.bigInt({ min: 0n, max: 2n ** 64n - 1n })), {
      freq: 4,
      nil: null,
    }),
    extended: fc.boolean(),
  });
  const archives = fc.array(member, { minLength: 1, maxLength: 5 }).map((members) => {
    const parts = members.map(({ name, type, kind, bytes, size, extended }) => {
      const change = (block: Buffer): void => void (extended && block.writeUInt8(1, 482));
      return tarMember(name, bytes, { type, kind, change, ...(size !== null && { size, binarySize: true }) });
    });
    return Buffer.concat([...parts, tarEnd]);
  });
  await fc.assert(fc.asyncProperty(archives, check), { seed, numRuns: 2000 });
  const valid = Buffer.concat([paxHeader({ path: 'a.img' }), tarMember('a', 'some bytes'), tarEnd]);
  await fc.assert(fc.asyncProperty(mutated(valid, [512, 1148, 1024, 1560]), check), { seed, numRuns: 500 });
  await fc.assert(fc.asyncProperty(randomImage(tarMember('a.img', 'x')), check), { seed, numRuns: 300 });
  t.ok(served > 20, `${served} were served`);
});
