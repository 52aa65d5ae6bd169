import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { notRaw, PROBED_BYTES, recognizeForeign } from '../../../drivers/formats/foreign.js';
import { whyNot } from '../../e2e/fixtures.js';

function recognize(bytes: Uint8Array): string | null {
  return recognizeForeign(bytes.subarray(0, PROBED_BYTES), bytes.subarray(-PROBED_BYTES))?.is ?? null;
}

function made(t: Test, name: string, program: string, args: string[]): Buffer {
  const path = join(t.testdir(), name);
  execFileSync(
    program,
    args.map((arg) => (arg === 'FILE' ? path : arg)),
    { stdio: 'ignore' },
  );
  return readFileSync(path);
}

t.test('images as qemu-img makes them', { skip: whyNot('qemu-img') }, async (t) => {
  for (const [format, is, ...options] of [
    ['qcow2', 'a qcow2 image'],
    ['qcow2', 'a qcow2 image', '-o', 'compat=0.10'],
    ['qed', 'a QED image'],
    ['vpc', 'a dynamic VHD image'],
    ['vpc', 'a fixed VHD image', '-o', 'subformat=fixed'],
    ['vhdx', 'a VHDX image'],
    ['vmdk', 'a VMDK image'],
    ['vmdk', 'the descriptor of a VMDK image', '-o', 'subformat=monolithicFlat'],
    ['vdi', 'a VDI image'],
    ['parallels', 'a Parallels image'],
    ['raw', null],
  ] as const) {
    t.equal(recognize(made(t, `a.${format}`, 'qemu-img', ['create', '-f', format, ...options, 'FILE', '4M'])), is);
  }
});

t.test('packed images', async (t) => {
  const disk = join(t.testdir(), 'disk.img');
  writeFileSync(disk, Buffer.alloc(1 << 16, 7));
  for (const [program, name = program] of [['gzip'], ['xz'], ['bzip2'], ['zstd'], ['lz4']] as const) {
    if (whyNot(program)) {
      t.pass(`${program} is not here`);
      continue;
    }
    t.equal(recognize(execFileSync(program, ['-c', disk])), `compressed with ${name}`);
  }
});

t.test('file systems and tables are raw', { skip: whyNot('mkfs.ext4', 'sfdisk') }, async (t) => {
  const path = join(t.testdir(), 'disk.img');
  writeFileSync(path, Buffer.alloc(4 << 20));
  execFileSync('mkfs.ext4', ['-q', '-F', path]);
  t.equal(recognize(readFileSync(path)), null);
  execFileSync('sfdisk', ['-q', path], { input: 'label: gpt\nsize=1M\n' });
  t.equal(recognize(readFileSync(path)), null);
});

t.test('what is short or random is raw', async (t) => {
  for (const length of [0, 1, 3, 8, 511, 512, 513]) t.equal(recognize(Buffer.alloc(length)), null, `${length} bytes`);
  t.equal(recognize(Buffer.concat([Buffer.alloc(64), randomBytes(1).fill(0), randomBytes(2048).fill(0x7f)])), null);
  t.equal(recognize(Buffer.from('conectix')), 'a dynamic VHD image', 'however short it is');
});

t.test('where a driver may read it, the refusal names the driver too', async (t) => {
  for (const [bytes, driver] of [
    ['conectix', 'vhd'],
    ['vhdxfile', 'vhdx'],
    ['# Disk DescriptorFile', 'vmdk'],
    [`${'\0'.repeat(64)}\x7f\x10\xda\xbe`, 'vdi'],
  ] as const) {
    const format = recognizeForeign(Buffer.from(bytes, 'latin1'), Buffer.alloc(0));
    const hint = `use ${driver}:/img/a, or convert it: qemu-img convert -O raw /img/a disk.img; to use its bytes`;
    t.match(notRaw('/img/a', format ?? { is: '', hint: '' }).hint, hint, driver);
  }
});

t.test('the refusal says what it is and what to do', async (t) => {
  const format = recognizeForeign(Buffer.from('QFI\xfb', 'latin1'), Buffer.alloc(0));
  t.match(notRaw('/img/my disk.qcow2', format ?? { is: '', hint: '' }), {
    code: 'USAGE',
    message: "'/img/my disk.qcow2' is not raw: it is a qcow2 image",
    hint: "use qcow2:'/img/my disk.qcow2', or convert it: qemu-img convert -O raw '/img/my disk.qcow2' disk.img; to use its bytes as they are: fusetap attach --raw",
    path: '/img/my disk.qcow2',
  });
});
