import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { frontDisk } from '../../../drivers/disk.js';
import type { Given, Need } from '../../../drivers/driver.js';
import { driverNames } from '../../../drivers/names.js';
import { findNeeds } from '../../../drivers/qcow2/needs.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { qemuImg, whyNoQemu } from '../qemu.js';

const CLUSTER = 512;
const EXTENSION = { format: 0xe2792aca, dataFile: 0x44415441 };

interface Image {
  readonly backing?: string;
  readonly extensions?: readonly [type: number, text: string][];
  readonly hasDataFile?: boolean;
  readonly version?: number;
}

/** The first clusters of an image: a header, its extensions, and the name of the backing file. */
function image({ backing, extensions = [], hasDataFile = false, version = 3 }: Image): Buffer {
  const bytes = Buffer.alloc(8 * CLUSTER);
  bytes.writeUInt32BE(0x514649fb, 0);
  bytes.writeUInt32BE(version, 4);
  bytes.writeUInt32BE(9, 20);
  bytes.writeBigUInt64BE(4096n, 24);
  bytes.writeUInt32BE(1, 36);
  bytes.writeBigUInt64BE(BigInt(2 * CLUSTER), 40);
  bytes.writeBigUInt64BE(BigInt(CLUSTER), 48);
  bytes.writeUInt32BE(1, 56);
  if (version === 3) {
    bytes.writeBigUInt64BE(hasDataFile ? 4n : 0n, 72);
    bytes.writeUInt32BE(4, 96);
    bytes.writeUInt32BE(104, 100);
  }
  let at = version === 3 ? 104 : 72;
  for (const [type, text] of extensions) {
    bytes.writeUInt32BE(type, at);
    bytes.writeUInt32BE(Buffer.byteLength(text), at + 4);
    bytes.write(text, at + 8);
    at += 8 + Math.ceil(Buffer.byteLength(text) / 8) * 8;
  }
  if (backing !== undefined) {
    bytes.writeBigUInt64BE(BigInt(at + 8), 8);
    bytes.writeUInt32BE(Buffer.byteLength(backing), 16);
    bytes.write(backing, at + 8);
  }
  return bytes;
}

function diskOver(bytes: Buffer) {
  return frontDisk(bufferDisk(bytes), { readOnly: true });
}

function needsOf(bytes: Buffer, given: Given['disks'] = {}): Promise<readonly Need[]> {
  return findNeeds({ disks: { file: diskOver(bytes), ...given } });
}

const other = diskOver(Buffer.alloc(512));

t.test('an image alone needs nothing', async (t) => {
  t.same(await needsOf(image({})), []);
  await t.rejects(findNeeds({ disks: {} }), { code: 'USAGE' });
});

t.test('a backing file is opened by the driver of its format', async (t) => {
  const formats = { raw: 'aio', qcow2: 'qcow2', vpc: 'vhd', vhdx: 'vhdx', vmdk: 'vmdk', vdi: 'vdi' };
  for (const [format, driver] of Object.entries(formats)) {
    const bytes = image({ backing: 'base.img', extensions: [[EXTENSION.format, format]] });
    t.same(await needsOf(bytes), [{ role: 'backing', name: 'base.img', driver }], format);
    if (driver !== 'qcow2') t.ok(driverNames.includes(driver));
  }
  const old = image({ version: 2, backing: 'b', extensions: [[EXTENSION.format, 'raw']] });
  t.same(await needsOf(old), [{ role: 'backing', name: 'b', driver: 'aio' }], 'version 2');
});

t.test('a format that is not stated is never guessed', async (t) => {
  await t.rejects(needsOf(image({ backing: 'my base.img' })), {
    code: 'UNSUPPORTED',
    message: "it does not state the format of its backing file 'my base.img'",
    hint: "state it, raw or qcow2: qemu-img rebase -u -F raw -b 'my base.img' IMAGE",
  });
  for (const format of ['', 'qed', 'host_device', 'RAW', 'raw\0', 'toString']) {
    const bytes = image({ backing: 'b', extensions: [[EXTENSION.format, format]] });
    await t.rejects(
      needsOf(bytes),
      { code: 'UNSUPPORTED', message: /has the format '.*', which has no driver$/ },
      format,
    );
  }
});

t.test('names are passed on as they are', async (t) => {
  for (const name of ['json:{"driver":"raw"}', 'nbd://host/x', '/etc/shadow', '../b', 'a\nb', 'x'.repeat(300)]) {
    const bytes = image({ backing: name, extensions: [[EXTENSION.format, 'raw']] });
    t.same(await needsOf(bytes), [{ role: 'backing', name, driver: 'aio' }]);
  }
});

t.test('a data file is needed', async (t) => {
  const bytes = image({ hasDataFile: true, extensions: [[EXTENSION.dataFile, 'd.raw']] });
  t.same(await needsOf(bytes), [{ role: 'data', name: 'd.raw', driver: 'aio' }]);
  t.same(await needsOf(bytes, { data: other }), [], 'unless the user gave it');
  t.same(await needsOf(image({ extensions: [[EXTENSION.dataFile, 'd.raw']] })), [], 'a name without the feature');
  await t.rejects(needsOf(image({ hasDataFile: true })), {
    code: 'USAGE',
    message: 'its data is in another file, and it does not name that file',
    hint: /"data": {"file": PATH}/,
  });
  t.same(await needsOf(image({ hasDataFile: true }), { data: other }), [], 'unless the user gave it');
});

t.test('a backing file that the user gave is not looked up', async (t) => {
  const bytes = image({
    ...{ backing: 'b', hasDataFile: true },
    extensions: [
      [EXTENSION.format, 'qcow2'],
      [EXTENSION.dataFile, 'd'],
    ],
  });
  t.same(
    (await needsOf(bytes)).map(({ role }) => role),
    ['backing', 'data'],
  );
  t.same(
    (await needsOf(bytes, { backing: other })).map(({ role }) => role),
    ['data'],
  );
  t.same(await needsOf(image({ backing: 'b' }), { backing: other }), [], 'even if its format is not stated');
});

t.test('images of QEMU', { skip: whyNoQemu() }, async (t) => {
  const directory = t.testdir();
  const at = (name: string): string => join(directory, name);
  const needs = async (name: string) => needsOf(await readFile(at(name)));
  await writeFile(at('base.raw'), Buffer.alloc(1 << 20));
  qemuImg('create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', at('a.qcow2'));
  t.same(await needs('a.qcow2'), [{ role: 'backing', name: 'base.raw', driver: 'aio' }]);
  qemuImg('create', '-q', '-f', 'qcow2', '-b', at('a.qcow2'), '-F', 'qcow2', '-o', 'compat=0.10', at('b.qcow2'));
  t.same(await needs('b.qcow2'), [{ role: 'backing', name: at('a.qcow2'), driver: 'qcow2' }]);
  qemuImg('create', '-q', '-f', 'qcow2', '-o', `data_file=${at('d.raw')},data_file_raw=on`, at('c.qcow2'), '1M');
  t.same(await needs('c.qcow2'), [{ role: 'data', name: at('d.raw'), driver: 'aio' }]);
});
