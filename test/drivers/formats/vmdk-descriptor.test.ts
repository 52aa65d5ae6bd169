import fc from 'fast-check';
import t from 'tap';
import { parseDescriptor, parseEmbedded } from '../../../drivers/vmdk/descriptor.js';
import vmdk from '../../../drivers/vmdk/index.js';
import { vmdkDescriptor } from '../images/vmdk.js';
import { diskOf, mutated, randomImage, refusesOrServes, seed } from './image-bytes.js';

const flat = 'RW 8 FLAT "a-flat.vmdk" 0';

t.test('extents, with the files that they name', async (t) => {
  const lines = [
    'RW 8 FLAT "a b.vmdk" 0',
    'RDONLY 16 VMFS "c"',
    'RW 2 ZERO',
    'RW 8 FLAT "a b.vmdk" 8',
    'NOACCESS 1 FLAT "d" 0',
  ];
  const { extents, names, isTracked } = parseDescriptor(vmdkDescriptor(lines));
  t.same(names, ['a b.vmdk', 'c'], 'each once, and none that is not used');
  t.same(extents, [
    { access: 'write', type: 'FLAT', size: 4096, place: { file: 0, start: 0, isSparse: false } },
    { access: 'read', type: 'VMFS', size: 8192, place: { file: 1, start: 0, isSparse: false } },
    { access: 'write', type: 'ZERO', size: 1024, place: null },
    { access: 'write', type: 'FLAT', size: 4096, place: { file: 0, start: 4096, isSparse: false } },
    { access: 'none', type: 'FLAT', size: 512, place: null },
  ]);
  t.same(parseDescriptor(vmdkDescriptor(['RW 8 SPARSE "a"', 'RW 8 VMFSSPARSE "b"'])).extents, [
    { access: 'write', type: 'SPARSE', size: 4096, place: { file: 0, start: 0, isSparse: true } },
    { access: 'write', type: 'VMFSSPARSE', size: 4096, place: { file: 1, start: 0, isSparse: true } },
  ]);
  t.equal(isTracked, false);
});

t.test('texts as programs write them', async (t) => {
  const texts: [string, Buffer][] = [
    ['CR and LF', vmdkDescriptor([flat], { newline: '\r\n' })],
    ['NULs at the end', Buffer.concat([vmdkDescriptor([flat]), Buffer.alloc(500)])],
    ['spaces', vmdkDescriptor(['  RW   8  FLAT  "a-flat.vmdk"   0 '])],
    ['no blanks in settings', vmdkDescriptor([flat], { settings: ['encoding="UTF-8"', 'isNativeSnapshot="no"'] })],
    ['a parent id in capitals', vmdkDescriptor([flat], { parent: 'FFFFFFFF' })],
  ];
  for (const [what, text] of texts) t.same(parseDescriptor(text).names, ['a-flat.vmdk'], what);
});

t.test('names are UTF-8 if they can be, else as the descriptor says', async (t) => {
  const named = (name: string, ...settings: string[]): readonly string[] =>
    parseDescriptor(vmdkDescriptor([`RW 8 FLAT "${name}" 0`], { settings })).names;
  const utf8 = Buffer.from('Lösung.vmdk').toString('latin1');
  t.same(named(utf8), ['Lösung.vmdk']);
  t.same(named(utf8, 'encoding="windows-1252"'), ['Lösung.vmdk'], 'as copied to this system');
  t.same(named('L\xf6sung.vmdk', 'encoding="windows-1252"'), ['Lösung.vmdk']);
  t.throws(() => named('L\xf6sung.vmdk'), { code: 'FAILED', message: /'utf-8'/ });
  t.throws(() => named('L\xf6sung.vmdk', 'encoding="klingon"'), { code: 'FAILED', message: /'klingon'/ });
});

t.test('variants without driver have a line each', async (t) => {
  const refuse = (text: Buffer, message: RegExp): void => {
    t.throws(() => parseDescriptor(text), { code: 'UNSUPPORTED', message, hint: /qemu-img convert/ }, String(message));
  };
  refuse(vmdkDescriptor(['RW 8 SESPARSE "a.vmdk"']), /with extents of type SESPARSE/);
  refuse(vmdkDescriptor(['RW 8 VMFSRDM "a.vmdk"']), /on a device/);
  refuse(vmdkDescriptor(['RW 8 FLAT "/dev/sda" 0']), /on a device/);
  refuse(vmdkDescriptor(['RW 8 FLAT "\\\\.\\PhysicalDrive0" 0']), /on a device/);
  refuse(vmdkDescriptor([flat], { type: 'fullDevice' }), /on a device/);
  refuse(vmdkDescriptor(['RW 8 NEW "a.vmdk"']), /type 'NEW'/);
  refuse(vmdkDescriptor([flat], { settings: ['encryptionKeys="vmware:key"'] }), /encrypted/);
  refuse(Buffer.from('# Disk DescriptorFile\nversion=4\n'), /version '4'/);
  t.equal(parseDescriptor(vmdkDescriptor([flat], { settings: ['changeTrackPath="x"'] })).isTracked, true);
});

t.test('the parent, and what the text says of itself', async (t) => {
  const parse = (parent: string, ...settings: string[]) =>
    parseDescriptor(vmdkDescriptor([flat], { parent, settings }));
  t.match(parse('ffffffff'), { cid: '12345678', parent: null, createType: 'monolithicFlat', adapterType: 'ide' });
  t.same(parse('ABC', 'parentFileNameHint="base.vmdk"').parent, { cid: '00000abc', name: 'base.vmdk' });
  t.throws(() => parse('12345678'), { code: 'FAILED', message: /does not name it/ });
  t.throws(() => parse('ffffffff', 'parentFileNameHint="base.vmdk"'), { code: 'FAILED', message: /names a parent/ });
  t.throws(() => parse('123456789'), { code: 'FAILED', message: /content id '123456789'/ });
});

t.test('a descriptor inside its extent', async (t) => {
  const embedded = parseEmbedded(vmdkDescriptor(['RW 8 SPARSE "../any name"'], { type: 'monolithicSparse' }));
  t.match(embedded, { extents: [], names: [], createType: 'monolithicSparse' }, 'the name is not used');
  const two = vmdkDescriptor(['RW 8 SPARSE "a"', 'RW 8 SPARSE "b"']);
  t.throws(() => parseEmbedded(two), { code: 'UNSUPPORTED', message: /of 2 extents/ });
  t.throws(() => parseEmbedded(Buffer.alloc(512)), { code: 'FAILED', message: /does not begin with/ });
});

t.test('what breaks the rules is refused', async (t) => {
  for (const lines of [
    [],
    ['RW'],
    ['RW 8 FLAT'],
    ['RW 8 FLAT ""'],
    ['RW 8 FLAT a.vmdk 0'],
    ['RW 8 FLAT "a" 0 x'],
    ['RW -8 FLAT "a" 0'],
    ['RW 0 FLAT "a" 0'],
    ['RW 8 FLAT "a" 0x10'],
    ['RW 9999999999999999 FLAT "a" 0'],
    ['RW 99999999999999999999 FLAT "a" 0'],
    ['RW 8 FLAT "a" 9999999999999999'],
    ['RW 8 SPARSE "a" 8'],
    ['RW 8 SPARSE "a"', 'RW 8 SPARSE "a"'],
    Array.from({ length: 3 }, () => 'RW 9000000000000 ZERO'),
    ['RW 8 FLAT "a" 0', 'RW 8 FLAT "a" 7'],
    ['RW 8 FLAT "a" 7', 'RW 8 FLAT "b" 7', 'RW 8 FLAT "a" 0'],
  ]) {
    t.throws(() => parseDescriptor(vmdkDescriptor(lines)), { code: 'FAILED' }, lines.join(' | '));
  }
});

const context = { memory: null, state: null, readOnly: false, isRepaired: true, options: {}, files: {} };
const needsOf = (bytes: Buffer) =>
  vmdk.needs({ files: {}, disks: { file: diskOf(bytes) }, options: {}, name: 'a.vmdk', absent: [] });

t.test('the driver needs what the descriptor names', async (t) => {
  t.same(await needsOf(vmdkDescriptor([flat, 'RW 1 FLAT "../../etc/shadow" 0'])), [
    { role: 'extent0', name: 'a-flat.vmdk', driver: 'aio' },
    { role: 'extent1', name: '../../etc/shadow', driver: 'aio' },
  ]);
  const many = (count: number) => vmdkDescriptor(Array.from({ length: count }, (_, i) => `RW 1 FLAT "f${i}" 0`));
  t.equal((await needsOf(many(249))).length, 249);
  await t.rejects(needsOf(many(250)), { code: 'UNSUPPORTED', message: /250 files: at most 249/ });
  const longer = Buffer.concat([vmdkDescriptor([flat]), Buffer.alloc(1 << 20, 0x20)]);
  await t.rejects(needsOf(longer), { code: 'FAILED', message: /more than 1 MiB/ });
  const child = vmdkDescriptor([flat], { parent: 'ABCDEF', settings: ['parentFileNameHint="/vm/base.vmdk"'] });
  t.same(await needsOf(child), [
    { role: 'extent0', name: 'a-flat.vmdk', driver: 'aio' },
    { role: 'backing', name: '/vm/base.vmdk', driver: 'vmdk' },
  ]);
  await t.rejects(needsOf(Buffer.from('any text')), { code: 'USAGE', message: 'it is not a VMDK' });
  await t.rejects(vmdk.open({ ...context, disks: { file: diskOf(vmdkDescriptor([flat])) } }), { code: 'NOT_FOUND' });
});

t.test(`hostile images (FUSETAP_TEST_SEED=${seed})`, async (t) => {
  let served = 0;
  const sizes = new Map([
    [10, 4096],
    [11, 100_000],
    [12, 512],
  ]);
  const check = async (bytes: Buffer): Promise<void> => {
    const disks = Object.fromEntries([...sizes].map(([fd, size], i) => [`extent${i}`, diskOf(Buffer.alloc(size), fd)]));
    const image = { file: diskOf(bytes), ...disks };
    if (await refusesOrServes(() => vmdk.open({ ...context, disks: image }), sizes)) served += 1;
  };
  const valid = vmdkDescriptor([flat, 'RW 8 FLAT "b" 8', 'RDONLY 1 VMFS "c"', 'RW 5 ZERO']);
  await fc.assert(fc.asyncProperty(mutated(valid, [0, 22]), check), { seed, numRuns: 1000 });
  const line = fc.record({
    access: fc.constantFrom('RW', 'RW', 'RDONLY', 'NOACCESS', 'X'),
    sectors: fc.oneof(fc.nat({ max: 20 }), fc.nat({ max: 9_999_999 }), fc.bigInt({ min: 0n, max: 10n ** 18n })),
    type: fc.constantFrom('FLAT', 'FLAT', 'VMFS', 'ZERO', 'ZERO', 'SPARSE'),
    name: fc.constantFrom('"a"', '"a"', '"b"', '"c"', '"d"', 'a', ''),
    start: fc.oneof(fc.nat({ max: 20 }), fc.bigInt({ min: 0n, max: 10n ** 18n })),
  });
  const texts = fc.array(line, { maxLength: 6 }).map((lines) => {
    return vmdkDescriptor(
      lines.map(({ access, sectors, type, name, start }) => `${access} ${sectors} ${type} ${name} ${start}`),
    );
  });
  await fc.assert(fc.asyncProperty(texts, check), { seed, numRuns: 1000 });
  await fc.assert(fc.asyncProperty(randomImage(Buffer.from('# Disk DescriptorFile\n')), check), { seed, numRuns: 300 });
  t.ok(served > 20, `${served} were served`);
});
