/** Checks of images that no bus serves: who may use them meanwhile, and what a repair does. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { type CheckedImage, checkImageFile, NO_CHECK } from '../../../mount/offline/check-image.js';
import { anatomyOf } from '../../drivers/qcow2/broken-images.js';
import { makeQemuImage, qemuCheck } from '../../drivers/qcow2/qemu-images.js';
import { qemuImg, whyNoQemu } from '../../drivers/qemu.js';
import { asOtherUser, needsRoot } from '../host.js';

t.setTimeout(120_000);
const skip = whyNoQemu();

const check = (path: string, repairsLeaks = false): Promise<CheckedImage> =>
  checkImageFile({ path, drivers: [] }, { repairsLeaks });

/** Takes a reference away: its cluster leaks. */
function leak(path: string): void {
  const image = readFileSync(path);
  const { entries } = anatomyOf(image);
  const at = entries.find((entry) => ((image[entry] as number) & 0x80) !== 0) as number;
  image.fill(0, at, at + 8);
  writeFileSync(path, image);
}

t.test('leaks are found, and freed when asked for', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  t.match(await check(path), {
    format: 'qcow2',
    freedClusters: 0,
    result: { corruptionCount: 0, leaks: { clusters: 0 } },
  });
  leak(path);
  const before = readFileSync(path);
  t.match(await check(path), { freedClusters: 0, result: { leaks: { clusters: 1, bytes: 65_536 } } });
  t.ok(readFileSync(path).equals(before), 'a check changes nothing');
  t.match(await check(path, true), { freedClusters: 1, notes: [], result: { leaks: { clusters: 0 } } });
  t.match(qemuCheck(path), { status: 0 });
});

t.test('nothing is freed in a corrupt image', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  leak(path);
  const image = readFileSync(path);
  image.writeUInt8(0x20, anatomyOf(image).l1);
  writeFileSync(path, image);
  const checked = await check(path, true);
  t.match(checked, { freedClusters: 0, notes: [/^nothing was repaired: the qcow2 image is damaged: /] });
  t.ok(checked.result.corruptionCount > 0);
  t.ok(readFileSync(path).equals(image));
});

t.test('an image that was not closed cleanly is repaired as a whole', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  const image = readFileSync(path);
  image.writeUInt8(1, 79);
  image.writeUInt16BE(0, (anatomyOf(image).blocks[0] as number) + 12);
  writeFileSync(path, image);
  t.match(await check(path), { result: { isDirty: true, corruptionCount: 2 } });
  t.match(await check(path, true), {
    notes: [],
    result: { isDirty: false, corruptionCount: 0, leaks: { clusters: 0 } },
  });
  t.match(qemuCheck(path), { status: 0 });
});

t.test('a format without a check says so', { skip }, async (t) => {
  const directory = t.testdir({ 'a.img': Buffer.alloc(4096) });
  qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', join(directory, 'a.vmdk'), '2M');
  for (const name of ['a.img', 'a.vmdk']) {
    await t.rejects(check(join(directory, name)), { code: 'UNSUPPORTED', operation: NO_CHECK }, name);
  }
});

t.test('an image in use is refused', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  const using = async (flags: string[]): Promise<() => Promise<unknown>> => {
    const qemu = spawn('qemu-io', ['-f', 'qcow2', ...flags, path], { stdio: ['pipe', 'pipe', 'ignore'] });
    qemu.stdin.write('read 0 512\n');
    await once(qemu.stdout, 'data');
    return () => {
      const ended = once(qemu, 'exit');
      qemu.stdin.end('quit\n');
      return ended;
    };
  };
  const endWriter = await using([]);
  await t.rejects(check(path), { code: 'BUSY', message: /is open for writing in/, hint: /^end that (?!.*mode)/ });
  await endWriter();
  const endReader = await using(['-r']);
  t.match(await check(path), { result: { corruptionCount: 0 } }, 'another reader does not matter');
  await t.rejects(check(path, true), { code: 'BUSY', hint: /^end that (?!.*mode)/ });
  await endReader();
  copyFileSync(path, `${path}.copy`);
  t.match(await check(`${path}.copy`, true), { freedClusters: 0 });
});

t.test('an image that cannot be written is not repaired', { skip: skip || needsRoot }, async (t) => {
  await asOtherUser(t, async (directory) => {
    const path = makeQemuImage('plain', directory);
    chmodSync(path, 0o444);
    process.seteuid?.(12_345);
    await t.rejects(check(path, true), { code: 'DENIED', hint: 'make it writable, or omit --repair' });
  });
});

t.test('a driver of another format is refused', { skip }, async (t) => {
  const path = makeQemuImage('plain', t.testdir());
  const checkBy = (driver: string) => checkImageFile({ path, drivers: [driver] }, { repairsLeaks: false });
  await t.rejects(checkBy('vhd'), {
    code: 'USAGE',
    message: /plain\.qcow2 is a qcow2 image, which the driver vhd does not read/,
  });
  await t.rejects(checkBy('aio'), { code: 'UNSUPPORTED', operation: NO_CHECK }, 'raw has any bytes');
  // a guest can write this to the end of its disk
  const image = readFileSync(path);
  writeFileSync(path, Buffer.concat([image, Buffer.from('conectix'.padEnd(512, '\0'))]));
  t.match(await checkBy('qcow2'), { format: 'qcow2' });
});
