/** `fusetap map` on a real bus and without one, judged by `qemu-img map`; and a snapshot over qcow2, which threads serve. */
import { join } from 'node:path';
import t from 'tap';
import { map, openDisk } from '../../mount/index.js';
import { qemuImg, qemuIo, whyNoQemu } from '../drivers/qemu.js';
import { KERNEL, startBus } from '../survival/bus.js';
import { type Bench, openBench, whyNot } from './fixtures.js';

const skip = whyNot() || whyNoQemu();
const KIB = 1024;
const MIB = KIB * KIB;
t.setTimeout(300_000);

interface Extent {
  readonly start: number;
  readonly length: number;
  readonly depth: number;
  readonly present: boolean;
  readonly zero: boolean;
  readonly data: boolean;
  readonly offset?: number;
  readonly filename?: string;
}

async function mapOf(bench: Bench, ...words: string[]): Promise<Extent[]> {
  return JSON.parse(await bench.succeed(['map', '--json', ...words])) as Extent[];
}

/** What both tell: QEMU joins less, and this version of it tells no names. */
function plain(extents: readonly Extent[]): unknown[] {
  const all: Extent[] = [];
  for (const { start, length, depth, present, zero, data, offset } of extents) {
    const last = all.at(-1);
    const isSame = last?.depth === depth && last.present === present && last.zero === zero && last.data === data;
    const isNext =
      offset === undefined ? last?.offset === undefined : (last?.offset ?? Number.NaN) + (last?.length ?? 0) === offset;
    const place = offset === undefined ? {} : { offset };
    if (last !== undefined && isSame && isNext) all[all.length - 1] = { ...last, length: last.length + length };
    else all.push({ start, length, depth, present, zero, data, ...place });
  }
  return all;
}

function qemuMap(image: string): unknown[] {
  return plain(JSON.parse(qemuImg('map', '-U', '-f', 'qcow2', '--output', 'json', image)) as Extent[]);
}

/** A chain: an overlay over a qcow2 image, over a raw image that is shorter. */
async function makeChain(bench: Bench): Promise<{ top: string; middle: string; base: string }> {
  const [top, middle] = [bench.path('top.qcow2'), bench.path('middle.qcow2')];
  const base = await bench.image('base.img', 4 * MIB, 2 * MIB);
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.img', middle, '8M');
  qemuIo('qcow2', middle, 'write -P 3 3M 2M');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'qcow2', '-b', 'middle.qcow2', top, '16M');
  qemuIo('qcow2', top, 'write -P 4 1M 100k');
  qemuIo('qcow2', top, 'write -z 4M 128k');
  return { top, middle, base };
}

t.test('a chain: of a vbd, and of the image without a bus', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const { top, middle, base } = await makeChain(bench);
  const theirs = qemuMap(top);
  for (const word of [top, `qcow2:${top}`]) {
    const ours = await mapOf(bench, word);
    t.same(plain(ours), theirs, word);
    const names = [...new Set(ours.flatMap(({ filename }) => filename ?? []))];
    t.same(names.sort(), [base, middle, top].sort());
  }
  t.match(await bench.fusetap(['map', '--backing', 'none', top]), { status: 5, stderr: /--backing none forbids that/ });
  const raw = await mapOf(bench, `aio:${top}`);
  t.ok(
    raw.every(({ depth, filename }) => depth === 0 && filename === top),
    'its bytes',
  );

  const path = await bench.attach('-r', `qcow2:${top}`);
  for (const word of ['xvda', path, top]) t.same(plain(await mapOf(bench, word)), theirs, word);
  const ofLibrary = await map('xvda', { runtimeDir: bench.runtimeDir });
  t.equal(ofLibrary.at(-1)?.filename, null);
  await bench.detach('xvda');

  await bench.attach('--offset', '1M', '--sizelimit', '2M', '--filter', 'delay=1', `qcow2:${top}`);
  t.match(await mapOf(bench, 'xvda'), [{ start: 0, length: 128 * KIB, depth: 0, filename: top }], 'through filters');
  await bench.detach('xvda');

  await bench.attach(`qcow2:${top}`);
  await bench.sh('printf x | dd of="$1" bs=1 seek=9M conv=notrunc,fsync status=none', path);
  t.match(await bench.fusetap(['map', `qcow2:${top}`]), { status: 4, stderr: /top\.qcow2 is attached with mode w/ });
  const written = (await mapOf(bench, 'xvda')).find(
    ({ start, length }) => start <= 9 * MIB && 9 * MIB < start + length,
  );
  t.match(written, { depth: 0, data: true, filename: top });
  await bench.detach('xvda');
});

t.test('openDisk opens what an image names, by the rules of --backing', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.begin();
  const { top, base } = await makeChain(bench);
  const disk = await openDisk(top, { driver: 'qcow2', mode: 'r' });
  const bytes = Buffer.alloc(MIB);
  await disk.read(bytes, 0);
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', top, bench.path('top.raw'));
  const raw = await openDisk(bench.path('top.raw'), { mode: 'r' });
  const same = Buffer.alloc(MIB);
  await raw.read(same, 0);
  t.ok(bytes.equals(same));
  await t.rejects(openDisk(base), { code: 'BUSY' }, 'the base is claimed');
  await disk.close();
  await raw.close();
  await (await openDisk(base)).close();
  await t.rejects(openDisk(top, { driver: 'qcow2', backing: 'none' }), { code: 'DENIED' });
  await bench.sh(
    'mkdir sub; mv top.qcow2 sub; cd sub; qemu-img rebase -u -f qcow2 -F qcow2 -b ../middle.qcow2 top.qcow2',
  );
  const moved = join(bench.path('sub'), 'top.qcow2');
  await t.rejects(openDisk(moved, { driver: 'qcow2' }), { code: 'DENIED', message: /not below/ });
  const writable = await openDisk(moved, { driver: 'qcow2', backing: 'any' });
  await writable.write(Buffer.from('written'), 12 * MIB);
  await writable.close();
  qemuImg('check', '-q', moved);
  qemuIo('qcow2', moved, `read -P 119 ${12 * MIB} 1`);
  await bench.sh('qemu-img rebase -u -f qcow2 -F qcow2 -b top.qcow2 sub/top.qcow2');
  await t.rejects(openDisk(moved, { driver: 'qcow2' }), { code: 'USAGE', message: /below itself/ });
});

t.test('a snapshot over qcow2', { skip: skip || whyNot('fio') }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const { top, base } = await makeChain(bench);
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', top, bench.path('top.raw'));
  const path = await bench.attach('--snapshot', `qcow2:${top}`);
  t.equal(await bench.sh('cmp "$1" "$2"', path, bench.path('top.raw')), '');
  await bench.sh('printf x | dd of="$1" bs=1 seek=5000 conv=notrunc,fsync status=none', path);
  const extents = await mapOf(bench, 'xvda');
  t.match(extents.slice(0, 3), [
    { start: 0, length: 4096, depth: 3, filename: base },
    { start: 4096, length: 4096, depth: 0, data: true },
    { start: 8192, depth: 3, offset: 8192, filename: base },
  ]);
  t.notOk('filename' in (extents[1] ?? {}), 'what was written is in memory');
  t.same(plain(extents.filter(({ depth }) => depth > 1)).length > 3, true);

  const job = [
    '--name=verify',
    `--filename=${path}`,
    '--size=16M',
    '--rw=randrw',
    '--bsrange=512-64k',
    '--blockalign=512',
  ];
  const verified = ['--verify=crc32c', '--do_verify=1', '--ioengine=libaio', '--iodepth=8', '--direct=1', '--loops=2'];
  const running = bench.execute('fio', [...job, ...verified, '--allow_file_create=0', '--runtime=60']);
  await bus.killServer();
  const { status, stderr } = await running;
  t.equal(status, 0, stderr);
  qemuImg('compare', '-q', '-f', 'qcow2', '-F', 'raw', top, bench.path('top.raw'));
});
