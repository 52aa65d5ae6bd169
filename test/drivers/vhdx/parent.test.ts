/** Differencing images: which parent they need, and which one they take. */
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import { findNeeds } from '../../../drivers/vhdx/needs.js';
import { describeImage } from '../../../mount/offline/describe-image.js';
import { diskOf } from '../formats/image-bytes.js';
import { openImageDisk, openTreeDisk } from '../graph-factory.js';
import { batEntry, DATA_GUID, type VhdxFields, vhdxBytes } from '../images/vhdx.js';
import { qemuImg, whyNoQemu } from '../qemu.js';
import { bytesAt, MIB, plainImage } from './over.js';

const LINKAGE = { parent_linkage: `{${DATA_GUID.toUpperCase()}}` };
const OTHER = '{ffffffff-0001-0002-0003-000000000004}';

/** The entries of the BAT of one chunk, with the sector bitmap at last. */
function batOver(entries: readonly bigint[], bitmap: bigint): bigint[] {
  return Array.from({ length: 4097 }, (_, i) => (i === 4096 ? bitmap : (entries[i] ?? 0n)));
}

/** A child whose blocks are: partly there, zeros, in the parent. Its bytes are 7; the bitmap is at 5 MiB. */
function child(parent: Readonly<Record<string, string>>, bitmap: Buffer, fields: Partial<VhdxFields> = {}): Buffer {
  const bat = batOver([batEntry(7, 4), batEntry(2), batEntry(0)], batEntry(6, 5));
  const bytes = vhdxBytes({ size: 3 * MIB, bat, parent, header: { dataGuid: OTHER.slice(1, -1) }, ...fields }, 2 * MIB);
  bitmap.copy(bytes, 5 * MIB);
  return bytes.fill(7, 4 * MIB, 5 * MIB);
}

async function needsOf(parent: Readonly<Record<string, string>>) {
  return await findNeeds({ disks: { file: diskOf(child(parent, Buffer.alloc(1))) } });
}

async function openIn(t: Test, files: Readonly<Record<string, Buffer>>) {
  const directory = t.testdir();
  for (const [name, bytes] of Object.entries(files)) await writeFile(join(directory, name), bytes);
  return await openImageDisk('vhdx', join(directory, 'child.vhdx'), true);
}

t.test('the parent is named by its relative path', async (t) => {
  const need = (name: string) => [{ role: 'backing', name, driver: 'vhdx' }];
  t.same(await needsOf({ ...LINKAGE, relative_path: '.\\parent.vhdx' }), need('./parent.vhdx'));
  t.same(await needsOf({ ...LINKAGE, relative_path: '..\\a\\b.vhdx' }), need('../a/b.vhdx'));
  await t.rejects(needsOf(LINKAGE), {
    code: 'UNSUPPORTED',
    message: /does not say where its parent is/,
    hint: /backing/,
  });
  const windows = { ...LINKAGE, relative_path: '', absolute_win32_path: 'C:\\vm\\a.vhdx', volume_path: '\\\\?\\V\\a' };
  await t.rejects(needsOf(windows), { message: /only 'C:\\vm\\a\.vhdx', '\\\\\?\\V\\a'$/ });
  t.same(await findNeeds({ disks: { file: diskOf(plainImage()) } }), [], 'an image without a parent');
});

t.test('the bitmap says which sectors are in the image, the lowest bit first', async (t) => {
  const parent = { ...LINKAGE, relative_path: 'parent.vhdx' };
  const bitmap = Buffer.alloc(256);
  bitmap.set([0b0000_0001, 0b1000_0000, 0xff, 0xff, 0b0000_0111]);
  const disk = await openIn(t, { 'parent.vhdx': plainImage(), 'child.vhdx': child(parent, bitmap) });
  const sectors = [0, 1, 7, 8, 14, 15, 16, 31, 32, 34, 35, 2047];
  t.same(
    await bytesAt(
      disk,
      sectors.map((sector) => sector * 512),
    ),
    [7, 1, 1, 1, 1, 7, 7, 7, 7, 7, 1, 1],
  );
  t.same(
    await bytesAt(disk, [511, 512, MIB - 1, MIB, 2 * MIB - 1, 2 * MIB]),
    [7, 1, 1, 0, 0, 2],
    'zeros hide the parent',
  );
  const changes = await disk.changes(0, 3 * MIB);
  t.same(
    changes.map(({ offset, length, kind }) => [offset / 512, length / 512, kind]),
    [
      [0, 1, 'data'],
      [15, 20, 'data'],
      [2048, 2048, 'zeros'],
    ],
  );
  const depths = (await disk.places.locate(0, 3 * MIB)).map(({ depth }) => depth);
  t.same(depths.slice(0, 4), [0, 1, 0, 1]);
  await disk.close();
});

t.test('a bitmap that is not there is an error for its blocks only', async (t) => {
  const parent = { ...LINKAGE, relative_path: 'parent.vhdx' };
  for (const entry of [batEntry(0), batEntry(1, 5), batEntry(6, 6), batEntry(6, 0)]) {
    const bat = batOver([batEntry(7, 4), batEntry(2), batEntry(6, 4)], entry);
    const files = { 'parent.vhdx': plainImage(), 'child.vhdx': child(parent, Buffer.alloc(1), { bat }) };
    const disk = await openIn(t, files);
    await t.rejects(disk.read(Buffer.alloc(1), 0), { code: 'FAILED', message: /sector bitmap of block 0/ });
    t.same(await bytesAt(disk, [MIB, 2 * MIB]), [0, 7]);
    await disk.close();
  }
});

t.test('the parent must be the one that the image was made over', async (t) => {
  const open = (parent: Readonly<Record<string, string>>) =>
    openIn(t, {
      'parent.vhdx': plainImage(),
      'child.vhdx': child({ ...parent, relative_path: 'parent.vhdx' }, Buffer.alloc(1)),
    });
  await (await open(LINKAGE)).close();
  await (await open({ parent_linkage: OTHER, parent_linkage2: DATA_GUID })).close();
  const message = /made over other bytes: the parent has the id da7a0000-[-\d]+, not ffffffff-/;
  await t.rejects(open({ parent_linkage: OTHER }), { code: 'FAILED', message });
  const file = { file: join(t.testdirName, 'child.vhdx') };
  const raw = { file: join(t.testdirName, 'parent.vhdx') };
  const overRaw = { driver: 'vhdx', options: {}, on: { file, backing: raw } };
  await t.rejects(openTreeDisk(overRaw, true), { code: 'FAILED', message: /the parent is not a VHDX/ });
  const without = { driver: 'vhdx', options: {}, on: { file: raw, backing: raw } };
  await t.rejects(openTreeDisk(without, true), { code: 'USAGE', message: /it has no parent/ });
});

t.test('a chain, in directories, and the sizes of a parent', async (t) => {
  const directory = t.testdir();
  await mkdir(join(directory, 'base'));
  const middle = child({ ...LINKAGE, relative_path: '.\\base\\parent.vhdx' }, Buffer.from([1]));
  const names = { parent_linkage: OTHER, relative_path: '.\\middle.vhdx' };
  const small = { bat: [batEntry(6, 4)], size: 512 * 9 };
  await writeFile(join(directory, 'base/parent.vhdx'), plainImage(small));
  await writeFile(join(directory, 'middle.vhdx'), middle);
  const top = join(directory, 'top.vhdx');
  await writeFile(top, child(names, Buffer.alloc(1), { bat: batOver([0n, batEntry(6, 4), 0n], batEntry(6, 5)) }));
  const disk = await openImageDisk('vhdx', top, true);
  const places = [0, 511, 512, 9 * 512 - 1, 9 * 512, MIB, 2 * MIB];
  t.same(await bytesAt(disk, places), [7, 7, 1, 1, 0, 7, 0], 'what is after the end of the parent is zeros');
  await disk.close();
  t.match(await describeImage({ path: top, drivers: [] }, 'same-directory'), {
    format: 'vhdx',
    size: 3 * MIB,
    facts: { type: 'differencing', log: 'empty', parent: true, blockBytes: MIB, creator: 'a test' },
    chain: [
      { role: 'backing', name: './middle.vhdx', size: 3 * MIB, error: null },
      { role: 'backing', name: './base/parent.vhdx', size: 512 * 9, error: null },
    ],
  });
  await rename(join(directory, 'base/parent.vhdx'), join(directory, 'gone.vhdx'));
  t.match((await describeImage({ path: top, drivers: [] }, 'any')).chain, [{ error: null }, { error: /no such/ }]);
});

t.test('a qcow2 image over a VHDX', { skip: whyNoQemu() }, async (t) => {
  const directory = t.testdir({ 'base.vhdx': plainImage() });
  const path = join(directory, 'top.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-u', '-F', 'vhdx', '-b', 'base.vhdx', path, '3M');
  const raw = await openTreeDisk({ driver: 'qcow2', options: {}, on: { file: { file: path } } }, true);
  const disk = frontDisk(raw, { readOnly: true });
  t.same(await bytesAt(disk, [0, MIB, 2 * MIB]), [1, 0, 2]);
  await disk.close();
});
