import { execFileSync } from 'node:child_process';
import { readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import { patternBytes } from '../conformance/pattern.js';
import { diskSuite } from '../conformance/suite.js';
import { bySyncCalls } from '../conformance/sync-calls.js';
import { isInstalled } from '../e2e/command.js';
import { type Builder, graphFactory, makeFile, openTreeDisk } from './graph-factory.js';
import { tarEnd, tarHeader, tarMember } from './images/tar.js';
import { vhdFooter } from './images/vhd.js';

const builder: Builder = async (size, directory) => {
  const path = join(directory, 'machine.ova');
  const before = tarMember('machine.ovf', '<Envelope/>');
  const head = Buffer.concat([before, tarHeader({ name: 'machine.img', size, binarySize: size > 2 ** 33 })]);
  const after = Buffer.concat([tarMember('machine.mf', 'SHA1'), tarEnd]);
  const end = head.length + Math.ceil(size / 512) * 512;
  await makeFile(path, end + after.length, [0, head], [end, after]);
  return {
    graph: { driver: 'tar', options: {}, on: { file: { file: path } } },
    runs: [{ path, offset: 0, start: head.length, size }],
  };
};
// headers after the member are read at each open, so the archive cannot be cut before
const abilities = { maxSizeBytes: 2 ** 42, holes: false, shrink: true };
diskSuite({ name: 'tar', test: t, factory: graphFactory(builder), abilities });
diskSuite({ name: 'tar in a thread', test: t, factory: graphFactory(builder, { wrap: bySyncCalls }), abilities });

async function openMember(path: string, options: Readonly<Record<string, string>> = {}): Promise<Disk> {
  const raw = await openTreeDisk({ driver: 'tar', options, on: { file: { file: path } } }, false);
  return frontDisk(raw, { readOnly: false });
}

async function bytesOf(disk: Disk): Promise<Buffer> {
  const bytes = Buffer.alloc(disk.size);
  await disk.read(bytes, 0);
  await disk.close();
  return bytes;
}

t.test('archives of tar', { skip: isInstalled('tar') ? false : 'tar is not installed' }, async (t) => {
  const long = `${'d'.repeat(90)}/${'e'.repeat(120)}`;
  for (const format of ['v7', 'oldgnu', 'gnu', 'ustar', 'posix']) {
    await t.test(`in the format ${format}: read here, written here, unpacked there`, async (t) => {
      const directory = t.testdir({ [long]: { 'disk.img': '' }, 'disk.raw': '', 'notes.txt': 'notes' });
      await writeFile(join(directory, 'disk.raw'), patternBytes(0, 100_001, 1));
      await writeFile(join(directory, long, 'disk.img'), patternBytes(0, 70_000, 2));
      const path = join(directory, 'a.tar');
      const hasLongNames = !['v7', 'ustar'].includes(format);
      const names = ['notes.txt', ...(hasLongNames ? [`./${long}/disk.img`] : []), 'disk.raw'];
      execFileSync('tar', ['-C', directory, `--format=${format}`, '-cf', path, ...names]);
      t.ok((await bytesOf(await openMember(path, { member: './disk.raw' }))).equals(patternBytes(0, 100_001, 1)));
      if (hasLongNames) {
        const bytes = await bytesOf(await openMember(path, { member: `${long}/disk.img` }));
        t.ok(bytes.equals(patternBytes(0, 70_000, 2)), 'a long name');
      } else t.ok((await bytesOf(await openMember(path))).equals(patternBytes(0, 100_001, 1)), 'the only one');
      const disk = await openMember(path, { member: 'disk.raw' });
      await disk.write(patternBytes(5, 9000, 3), 91_001);
      await disk.close();
      execFileSync('tar', ['-C', directory, '-xf', path, 'disk.raw']);
      const expected = patternBytes(0, 100_001, 1);
      patternBytes(5, 9000, 3).copy(expected, 91_001);
      t.ok((await readFile(join(directory, 'disk.raw'))).equals(expected));
    });
  }
  await t.test('with a member of more than 8 GiB', (t) => largeMember(t));
  await t.test('that are sparse are refused, members that are not are served', async (t) => {
    const directory = t.testdir({ 'a.img': '', 'b.raw': 'some bytes', 'c.img': '' });
    await truncate(join(directory, 'a.img'), 1 << 20);
    await makeFile(
      join(directory, 'many.img'),
      1 << 20,
      ...Array.from({ length: 60 }, (_, i): [number, Buffer] => [i * 16_384, Buffer.alloc(1, 1)]),
    );
    for (const how of [
      ['--format=gnu'],
      ...['0.0', '0.1', '1.0'].map((v) => ['--format=posix', `--sparse-version=${v}`]),
    ]) {
      const path = join(directory, 'a.tar');
      execFileSync('tar', ['-C', directory, ...how, '-Scf', path, 'many.img', 'a.img', 'b.raw']);
      const error = { code: 'UNSUPPORTED', message: /'many.img' is sparse/, hint: /unpack/ };
      await t.rejects(openMember(path, { member: 'many.img' }), error, how.join(' '));
      t.equal((await bytesOf(await openMember(path, { member: 'b.raw' }))).toString(), 'some bytes', how.join(' '));
    }
  });
  await t.test('that are compressed are refused', async (t) => {
    const directory = t.testdir({ 'a.img': 'bytes' });
    execFileSync('tar', ['-C', directory, '-czf', join(directory, 'a.tgz'), 'a.img']);
    const error = { code: 'UNSUPPORTED', message: /compressed with gzip/, hint: /gzip -dc/ };
    await t.rejects(openMember(join(directory, 'a.tgz')), error);
  });
});

async function largeMember(t: Test): Promise<void> {
  const directory = t.testdir();
  const size = 9 * 2 ** 30 + 5;
  await makeFile(join(directory, 'large.img'), size, [size - 5, Buffer.from('lasts')]);
  for (const format of ['gnu', 'posix']) {
    const path = join(directory, `${format}.tar`);
    // the archive is made sparse by writing its head only: tar would write 9 GiB
    const script = 'tar --format="$1" -C "$2" -cf - large.img | head -c 10240 > "$3"';
    execFileSync('bash', ['-c', script, 'bash', format, directory, path]);
    const head = (await readFile(path)).indexOf(Buffer.alloc(512), 512) / 512;
    const start = Math.ceil(head) * 512;
    await truncate(path, start + size + 507 + 1024);
    const disk = await openMember(path);
    t.equal(disk.size, size, format);
    t.equal(disk.segments?.[0]?.start, start, format);
    await disk.close();
  }
}

t.test('the disk of a format in an archive', async (t) => {
  const size = 4096;
  const image = Buffer.concat([patternBytes(0, size, 1), vhdFooter({ size })]);
  const path = join(t.testdir(), 'a.ova');
  await writeFile(path, Buffer.concat([tarMember('a.vhd', image), tarEnd]));
  const below = { driver: 'tar', options: {}, on: { file: { file: path } } };
  const disk = frontDisk(await openTreeDisk({ driver: 'vhd', options: {}, on: { file: below } }, false), {
    readOnly: false,
  });
  t.equal(disk.segments?.[0]?.start, 512);
  t.ok((await bytesOf(disk)).equals(patternBytes(0, size, 1)));
});
