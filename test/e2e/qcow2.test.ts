/** qcow2 images as QEMU makes them, through a bus: the files that they name, their snapshots, their compressed clusters. */
import { open, readFile, writeFile } from 'node:fs/promises';
import t from 'tap';
import { compressedImage, compressibleBytes } from '../drivers/qcow2/compressed-image.js';
import { qemuImg, qemuIo, whyNoQemu } from '../drivers/qemu.js';
import { KERNEL } from '../survival/bus.js';
import { type Bench, openBench, whyNot } from './fixtures.js';

const skip = whyNot() || whyNoQemu();
const MIB = 1 << 20;

t.setTimeout(300_000);

/** Reads a vbd and compares it with what QEMU reads. */
async function sameAsQemu(bench: Bench, vbd: string, image: string): Promise<void> {
  const raw = `${image}.raw`;
  qemuImg('convert', '-U', '-f', 'qcow2', '-O', 'raw', image, raw);
  await bench.sh('cmp "$1" "$2" && rm "$2"', vbd, raw);
}

async function serves(bench: Bench, image: string, ...words: string[]): Promise<void> {
  const vbd = await bench.attach('-r', ...words, `qcow2:${image}`);
  await sameAsQemu(bench, vbd, image);
  await bench.detach('xvda');
}

t.test('backing files', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.begin();
  const at = (name: string): string => bench.path(name);
  await bench.makeDirectory('sub');
  await bench.makeDirectory('other');
  await bench.image('base.img', 4 * MIB, 3 * MIB);
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.img', at('a.qcow2'), '6M');
  qemuIo('qcow2', at('a.qcow2'), 'write -P 1 1M 1M');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', '../a.qcow2', at('sub/b.qcow2'));
  qemuIo('qcow2', at('sub/b.qcow2'), 'write -P 2 1536k 1M');
  await serves(bench, at('a.qcow2'));
  t.pass('a raw one that is shorter');
  const refused = { status: 5, stderr: /names the file '\.\.\/a\.qcow2', which is not below/ };
  t.match(await bench.fusetap(['attach', `qcow2:${at('sub/b.qcow2')}`]), refused);
  await serves(bench, at('sub/b.qcow2'), '--backing', 'any');
  t.pass('a chain');

  for (const name of ['file:base.img', 'json:{"driver":"raw","file":{"driver":"file","filename":"/etc/passwd"}}']) {
    qemuImg('rebase', '-u', '-F', 'raw', '-b', name, at('a.qcow2'));
    const protocol = { status: 5, stderr: /which is not a path but a protocol/ };
    t.match(await bench.fusetap(['attach', '--backing', 'any', `qcow2:${at('a.qcow2')}`]), protocol, name);
  }
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.img', at('old.qcow2'));
  // as old programs made it: the extension gets a type that is not known
  const bytes = await readFile(at('old.qcow2'));
  bytes.writeUInt32BE(0x12345678, bytes.indexOf(Buffer.from('e2792aca', 'hex')));
  await writeFile(at('old.qcow2'), bytes);
  const unstated =
    /does not state the format of its backing file 'base\.img': state it, raw or qcow2: qemu-img rebase -u/;
  t.match(await bench.fusetap(['attach', `qcow2:${at('old.qcow2')}`]), { status: 6, stderr: unstated });
  await writeFile(
    at('tree.json'),
    JSON.stringify([
      {
        disk: { driver: 'qcow2', on: { file: { file: at('old.qcow2') }, backing: { file: at('base.img') } } },
        mode: 'r',
      },
    ]),
  );
  await bench.succeed(['attach', '--config', at('tree.json')]);
  await bench.sh('cmp "$1" "$2"', (await bench.list())[0]?.path ?? '', at('base.img'));
  await bench.detach('xvda');
});

t.test('data files', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.begin();
  const at = (name: string): string => bench.path(name);
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${at('d.raw')}`, at('disk.qcow2'), '4M');
  qemuIo('qcow2', at('disk.qcow2'), 'write -P 1 64k 1M');
  await serves(bench, at('disk.qcow2'));
  t.pass('beside the image');
  t.match(await bench.fusetap(['attach', '--backing', 'none', `qcow2:${at('disk.qcow2')}`]), { status: 5 });
  const vbd = await bench.attach(`qcow2:${at('disk.qcow2')}`);
  await bench.sh('head -c 100000 /dev/zero | tr "\\0" x | dd of="$1" bs=1M seek=2 conv=notrunc status=none', vbd);
  await bench.detach('xvda');
  await serves(bench, at('disk.qcow2'));
  t.pass('and is written');
  t.match(qemuImg('check', '-f', 'qcow2', at('disk.qcow2')), /No errors/);

  const bytes = await readFile(at('disk.qcow2'));
  bytes.writeUInt32BE(0x12345678, bytes.indexOf(Buffer.from('44415441', 'hex')));
  await writeFile(at('unnamed.qcow2'), bytes);
  const unnamed = /its data is in another file, and it does not name that file: give it in JSON/;
  t.match(await bench.fusetap(['attach', `qcow2:${at('unnamed.qcow2')}`]), { status: 2, stderr: unnamed });
  const on = { file: { file: at('unnamed.qcow2') }, data: { file: at('d.raw') } };
  await writeFile(at('tree.json'), JSON.stringify([{ disk: { driver: 'qcow2', on }, mode: 'r' }]));
  await bench.succeed(['attach', '--config', at('tree.json')]);
  await sameAsQemu(bench, (await bench.list())[0]?.path ?? '', at('disk.qcow2'));
  await bench.detach('xvda');
});

t.test('internal snapshots', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.begin();
  const image = bench.path('disk.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', image, '4M');
  qemuIo('qcow2', image, 'write -P 1 0 2M');
  qemuImg('snapshot', '-c', 'monday', image);
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', image, bench.path('monday.raw'));
  qemuIo('qcow2', image, 'write -P 2 1M 2M');
  qemuImg('resize', '-q', image, '8M');
  const option = (name: string): string[] => ['--option', `snapshot=${name}`];
  for (const name of ['monday', '1']) {
    const vbd = await bench.attach('-r', ...option(name), `qcow2:${image}`);
    await bench.sh('cmp "$1" "$2"', vbd, bench.path('monday.raw'));
    await bench.detach('xvda');
    t.pass(name);
  }
  await serves(bench, image);
  t.pass('the disk itself');
  const missing = { status: 3, stderr: /has no snapshot 'tuesday': name one with --option snapshot=NAME: 'monday'/ };
  t.match(await bench.fusetap(['attach', '-r', ...option('tuesday'), `qcow2:${image}`]), missing);
  t.match(await bench.fusetap(['attach', ...option('monday'), `qcow2:${image}`]), { status: 2, stderr: /mode r/ });
  const written = await bench.attach('--snapshot', '--option', 'snapshot=monday', `qcow2:${image}`);
  const first = await bench.sh(
    'printf new | dd of="$1" conv=notrunc status=none && head -c 4 "$1" | od -An -c',
    written,
  );
  t.match(first, /n +e +w +001/, 'writes go to memory');
  await bench.detach('xvda');
});

t.test('compressed clusters', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.begin();
  const [raw, image] = [bench.path('disk.img'), bench.path('disk.qcow2')];
  await writeFile(raw, compressibleBytes(24 * MIB));
  for (const type of ['zlib', 'zstd']) {
    for (const size of ['4k', '64k', '2M']) {
      qemuImg('convert', '-c', '-O', 'qcow2', '-o', `compression_type=${type},cluster_size=${size}`, raw, image);
      const vbd = await bench.attach('-r', `qcow2:${image}`);
      const readers = [1, 2, 3].map(() => bench.sh('cmp "$1" "$2"', vbd, raw));
      await Promise.all([...readers, bench.sh('dd if="$1" bs=1000 status=none | cmp - "$2"', vbd, raw)]);
      await bench.detach('xvda');
      t.pass(`${type}, ${size}`);
    }
  }
  const { streams } = await compressedImage(bench.directory, compressibleBytes(4 * MIB), 'compression_type=zstd');
  const file = await open(image, 'r+');
  await file.write(Buffer.alloc(16, 0xff), 0, 16, streams[20]?.place);
  await file.close();
  const vbd = await bench.attach('-r', `qcow2:${image}`);
  t.match(await bench.try('cat "$1" > /dev/null', vbd), { status: 1, stderr: /Input\/output error/ });
  await bench.sh('tail -c 1M "$1" > a && tail -c 1M "$2" | cmp - a', vbd, raw);
  t.pass('other clusters can be read');
  await bench.detach('xvda');
});
