/** New images get their name when they are complete; nothing is left of those that cannot be made. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  linkSync,
  lstatSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type CreateRequest, createImage } from '../../../mount/offline/create-image.js';
import { qemuCheck } from '../../drivers/qcow2/qemu-images.js';
import { qemuImg, qemuIo, qemuSize, whyNoQemu } from '../../drivers/qemu.js';
import { asOtherUser, needsRoot } from '../host.js';

t.setTimeout(120_000);
const skip = whyNoQemu();
const MIB = 1 << 20;

type Wish = Partial<Omit<CreateRequest, 'path'>>;

function make(path: string, wish: Wish = {}) {
  return createImage({ path, format: 'qcow2', size: null, backing: null, options: {}, force: false, ...wish });
}

/** A directory with a raw image of 4 MiB and a qcow2 image of 8 MiB. */
function withBases(t: Test): string {
  const directory = t.testdir({ 'base.img': Buffer.alloc(4 * MIB, 'b'), sub: {} });
  qemuImg('create', '-q', '-f', 'qcow2', join(directory, 'base.qcow2'), '8M');
  qemuIo('qcow2', join(directory, 'base.qcow2'), 'write -P 7 0 1M');
  return directory;
}

t.test('an image over a base has its size, its name and its bytes', { skip }, async (t) => {
  const directory = withBases(t);
  const cases: [name: string, format: string | null, size: number, byte: number, stored: string][] = [
    ['base.img', null, 4 * MIB, 98, 'raw'],
    ['./base.img', 'raw', 4 * MIB, 98, 'raw'],
    ['base.qcow2', 'qcow2', 8 * MIB, 7, 'qcow2'],
    [join(directory, 'base.qcow2'), 'qcow2', 8 * MIB, 7, 'qcow2'],
  ];
  for (const [i, [name, format, size, byte, stored]] of cases.entries()) {
    const path = join(directory, `${i}.qcow2`);
    t.same(await make(path, { backing: { name, format } }), { image: path, format: 'qcow2', size });
    const info = JSON.parse(qemuImg('info', '--output=json', path)) as Record<string, unknown>;
    t.match(info, { 'virtual-size': size, 'backing-filename': name, 'backing-filename-format': stored });
    qemuIo('qcow2', path, `read -P ${byte} 0 1M`);
    t.match(qemuCheck(path), { status: 0 });
  }
  const larger = join(directory, 'sub/larger.qcow2');
  await make(larger, { size: 16 * MIB, backing: { name: '../base.img', format: 'raw' } });
  qemuIo('qcow2', larger, 'read -P 98 3M 1M');
  qemuIo('qcow2', larger, 'read -P 0 4M 12M');
});

t.test('a base in another format has the size of its disk', { skip }, async (t) => {
  const directory = t.testdir();
  const base = join(directory, 'base.vdi');
  qemuImg('create', '-q', '-f', 'vdi', '-o', 'static=on', base, '3M');
  const path = join(directory, 'a.qcow2');
  t.match(await make(path, { backing: { name: 'base.vdi', format: 'vdi' } }), { size: qemuSize('vdi', base) });
  qemuImg('create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size', join(directory, 'base.vhd'), '3M');
  const over = join(directory, 'b.qcow2');
  await make(over, { backing: { name: 'base.vhd', format: 'vhd' } });
  t.match(qemuImg('info', over), /backing file format: vpc/, 'QEMU’s name of the format');
});

t.test('a format that can be over one other only need not be told which', async (t) => {
  const directory = t.testdir();
  const base = join(directory, 'base.vmdk');
  await make(base, { format: 'vmdk', size: 1 << 20 });
  const backing = { name: 'base.vmdk', format: null };
  t.match(await make(join(directory, 'child.vmdk'), { format: 'vmdk', backing }), { format: 'vmdk', size: 1 << 20 });
  writeFileSync(join(directory, 'raw.img'), Buffer.alloc(4096));
  await t.rejects(make(join(directory, 'x.vmdk'), { format: 'vmdk', backing: { name: 'raw.img', format: null } }), {
    message: /raw\.img: it is not a VMDK/,
  });
});

t.test('a format is not guessed', { skip }, async (t) => {
  const directory = withBases(t);
  const wish = { backing: { name: 'base.qcow2', format: null } };
  await t.rejects(make(join(directory, 'a.qcow2'), wish), {
    code: 'USAGE',
    message: /base\.qcow2 is a qcow2 image, and its format was not stated/,
    hint: /--backing-format qcow2, or raw/,
  });
  const asRaw = join(directory, 'b.qcow2');
  const { size } = statSync(join(directory, 'base.qcow2'));
  await make(asRaw, { backing: { name: 'base.qcow2', format: 'raw' } });
  t.ok(qemuSize('qcow2', asRaw) - size < 512);
});

t.test('what cannot be made leaves nothing', { skip }, async (t) => {
  const directory = withBases(t);
  const before = readdirSync(directory);
  const path = join(directory, 'a.qcow2');
  const refused = async (wish: Wish, code: string, message: RegExp, at = path): Promise<void> => {
    await t.rejects(make(at, wish), { code, message }, JSON.stringify(wish));
  };
  const base = (name: string, format: string | null = 'raw'): Wish => ({ backing: { name, format } });
  await refused({}, 'USAGE', /missing required argument 'SIZE'/);
  await refused(base('nowhere.img'), 'NOT_FOUND', /nowhere\.img: no such image/);
  await refused(base('sub'), 'USAGE', /directory/);
  await refused(base('base.img', 'qcow2'), 'USAGE', /base\.img: it is not a qcow2 image/);
  await refused(base('base.img', 'qed'), 'UNSUPPORTED', /'qed'/);
  await refused(base('json:{}'), 'DENIED', /protocol/);
  await refused(base('nbd://host'), 'DENIED', /protocol/);
  await refused({ ...base('base.img'), format: 'raw' }, 'USAGE', /no backing file/);
  await refused({ size: MIB, format: 'vhdx' }, 'UNSUPPORTED', /'vhdx' cannot be made/);
  await refused({ size: MIB, options: { cluster_size: '3K' } }, 'USAGE', /cluster_size/);
  await refused({ size: MIB }, 'NOT_FOUND', /ENOENT/, join(directory, 'nowhere/a.qcow2'));
  t.same(readdirSync(directory), before);
});

t.test('a file is replaced only with force, and keeps its owner and mode', { skip }, async (t) => {
  const directory = withBases(t);
  const path = join(directory, 'a.qcow2');
  writeFileSync(path, 'precious');
  await t.rejects(make(path, { size: MIB }), { code: 'BUSY', message: /is there already/, hint: /--force/ });
  t.equal(readFileSync(path, 'utf8'), 'precious');
  chmodSync(path, 0o640);
  const link = join(directory, 'link.qcow2');
  symlinkSync('a.qcow2', link);
  await t.rejects(make(link, { size: MIB }), { code: 'BUSY' });
  await make(link, { size: MIB, force: true });
  t.ok(lstatSync(link).isSymbolicLink());
  t.equal(statSync(path).mode & 0o777, 0o640);
  t.equal(qemuSize('qcow2', path), MIB);
  await t.rejects(make('/dev/null', { size: MIB, force: true }), { code: 'USAGE' });
  await t.rejects(make(directory, { size: MIB, force: true }), { code: 'USAGE', message: /directory/ });
  const dangling = join(directory, 'dangling');
  symlinkSync('elsewhere', dangling);
  await t.rejects(make(dangling, { size: MIB }), { code: 'BUSY' });
  t.notOk(readdirSync(directory).includes('elsewhere'));
});

t.test('an image is not its own backing file', { skip }, async (t) => {
  const directory = withBases(t);
  linkSync(join(directory, 'base.img'), join(directory, 'same.img'));
  for (const name of ['base.img', './sub/../base.img', 'same.img']) {
    const wish = { backing: { name, format: 'raw' }, force: true };
    await t.rejects(make(join(directory, 'base.img'), wish), { code: 'USAGE', message: /its own backing file/ }, name);
  }
  t.equal(readFileSync(join(directory, 'base.img')).length, 4 * MIB);
});

t.test('a new file has the permissions that the umask leaves', async (t) => {
  const path = join(t.testdir(), 'a.img');
  const old = process.umask(0o027);
  t.teardown(() => process.umask(old));
  await make(path, { format: 'raw', size: MIB });
  t.equal(statSync(path).mode & 0o777, 0o640);
});

t.test('what QEMU writes to is neither replaced nor a base', { skip }, async (t) => {
  const directory = withBases(t);
  const qemu = spawn('qemu-io', ['-f', 'raw', join(directory, 'base.img')], { stdio: ['pipe', 'pipe', 'ignore'] });
  qemu.stdin.write('read 0 512\n');
  await once(qemu.stdout, 'data');
  const over = make(join(directory, 'a.qcow2'), { backing: { name: 'base.img', format: 'raw' } });
  const hint = /^end that program(, or wait for it)?$/;
  await t.rejects(over, { code: 'BUSY', message: /base\.img is open for writing/, hint });
  await t.rejects(make(join(directory, 'base.img'), { size: MIB, force: true }), { code: 'BUSY', hint });
  qemu.stdin.end('quit\n');
  await once(qemu, 'exit');
  t.same(readdirSync(directory).sort(), ['base.img', 'base.qcow2', 'sub']);
});

t.test('a file of another user is refused before anything is written', { skip: needsRoot }, async (t) => {
  await asOtherUser(t, async (directory) => {
    const path = join(directory, 'a.img');
    writeFileSync(path, 'precious');
    chmodSync(path, 0o666);
    process.seteuid?.(12_345);
    await t.rejects(make(path, { format: 'raw', size: MIB, force: true }), {
      code: 'DENIED',
      message: /^cannot make the image \/.*a\.img: the file belongs to user 0$/,
      hint: 'only its owner or root can replace it: remove it first',
    });
    t.equal(readFileSync(path, 'utf8'), 'precious');
  });
});

t.test('a write that fails names the file', { skip: needsRoot }, async (t) => {
  const directory = t.testdir();
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'none', directory]);
  try {
    const wish = { size: 64 * MIB, options: { preallocation: 'metadata' } };
    await t.rejects(make(join(directory, 'a.qcow2'), wish), {
      code: 'NO_SPACE',
      message: /^cannot make the image \/.*\/a\.qcow2: .*ENOSPC/,
    });
    t.same(readdirSync(directory), []);
  } finally {
    execFileSync('umount', [directory]);
  }
});
