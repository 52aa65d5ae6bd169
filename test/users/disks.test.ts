/** What people want of the disks in their images, by public reports about other tools. */
import { open, truncate } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { SFDISK, SFDISK_PROGRAMS } from '../drivers/partitions/sfdisk.js';
import { gptDisk, type MbrEntry, putMbr, SECTOR } from '../drivers/partitions/tables.js';
import { collect } from '../e2e/command.js';
import { type Bench, openBench, whyNot } from '../e2e/fixtures.js';
import { busInfo } from '../e2e/kill-server.js';
import { KERNEL } from '../survival/bus.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const skip = whyNot('dd', ...SFDISK_PROGRAMS);

/** An image that begins with these bytes. */
async function imageOf(bench: Bench, name: string, bytes: Buffer, sizeBytes = bytes.length): Promise<string> {
  const path = await bench.image(name, sizeBytes);
  const file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, 0);
  await file.close();
  return path;
}

function mbrImage(bench: Bench, name: string, sizeBytes: number, entries: readonly MbrEntry[]): Promise<string> {
  return imageOf(bench, name, putMbr(Buffer.alloc(SECTOR), 0, entries), sizeBytes);
}

/** Writes a word to the start of a file of the bus, and reads it from the image. */
async function isRangeOf(bench: Bench, path: string, image: string, offset: number): Promise<boolean> {
  await bench.sh('printf marked | dd of="$1" conv=notrunc status=none', path);
  const read = 'dd if="$1" bs=512 skip="$2" iflag=skip_bytes count=1 status=none | head -c 6';
  return (await bench.sh(read, image, String(offset))) === 'marked';
}

t.test('disks', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.begin();
  const wishes: Record<string, (t: Test, bench: Bench) => Promise<void>> = {
    'makes an attached disk larger without detaching it': growDisk,
    'repartitions an attached disk and uses the new partitions at once': repartition,
    'looks into the EFI partition of a hybrid ISO': hybridIso,
    'reads what is left of the last partition of a cut image': cutImage,
    'reads the partitions of a disk with sectors of 4096 or 2048 bytes': largeSectors,
    'finds the partitions of a stick that once had a FAT': formerFat,
    'pipes a backup through a compressor': pipeBackup,
    'learns that a disk has an Apple partition map': appleMap,
    'learns that no image is bound to the loop device': unboundLoop,
  };
  for (const [wish, grant] of Object.entries(wishes)) {
    await t.test(wish, async (t) => {
      await grant(t, bench);
      await bench.fusetap(['detach', '--all', '--force']);
    });
  }
});

// arkos4clone #299, canonical/lxd #6318
async function growDisk(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('small.img', 2 * MIB);
  const disk = await bench.attach(image);
  await bench.sh('truncate -s +2M "$1"', image);
  await bench.succeed(['resize', 'small.img']);
  await bench.sh('dd if=/dev/zero of="$1" bs=1M count=4 conv=notrunc,fsync status=none', disk);
  t.match((await busInfo(bench)).vbds, [{ size: 4 * MIB, changedOutside: false }]);
}

// de10-nano #30, sebanc/brunch #97
async function repartition(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('card.img', 16 * MIB);
  const disk = await bench.attach(image);
  const write = 'path=$1; shift; printf "label: dos\\n,2M\\n,4M\\n" | "$@" -q --no-reread "$path"';
  await bench.sh(write, disk, ...SFDISK);
  const [, second = ''] = (await bench.succeed(['reread', disk])).split('\n');
  t.ok(await isRangeOf(bench, second, image, 3 * MIB));
}

// systemd/systemd #12409
async function hybridIso(t: Test, bench: Bench): Promise<void> {
  const iso = await mbrImage(bench, 'live.iso', 4 * MIB, [
    { type: 0, start: 0, count: 8192, boot: 0x80 },
    { type: 0xef, start: 2048, count: 2048 },
  ]);
  await bench.sh('printf EFI | dd of="$1" bs=1M seek=1 conv=notrunc status=none', iso);
  const attached = await bench.fusetap(['attach', '--partitions', iso]);
  t.match(attached, { status: 0, stderr: /partition 2 is read-only: it shares bytes with partition 1\n/ });
  const disk = attached.stdout.trim();
  t.equal(await bench.sh('head -c 3 "$1"2', disk), 'EFI');
  t.match((await bench.try('printf x >"$1"2', disk)).stderr, /Read-only file system/);
  t.match((await busInfo(bench)).vbds[0]?.partitions, [{ mode: 'w' }, { mode: 'r', typeName: 'EFI System' }]);
}

// Drewsif/PiShrink #252
async function cutImage(t: Test, bench: Bench): Promise<void> {
  const image = await mbrImage(bench, 'cut.img', 8 * MIB, [
    { type: 0x0c, start: 2048, count: 2048 },
    { type: 0x83, start: 4096, count: 12288 },
  ]);
  await bench.sh('printf kept | dd of="$1" bs=1M seek=2 conv=notrunc status=none', image);
  await truncate(image, 5 * MIB);
  const attached = await bench.fusetap(['attach', '--partitions', image]);
  t.match(
    attached.stderr,
    /partition 2 is read-only: it ends at byte 8388608, and is cut at the end of the disk, 5242880/,
  );
  const disk = attached.stdout.trim();
  t.equal(await bench.sh('head -c 4 "$1"2; stat -c " %s %A" "$1"2', disk), `kept ${3 * MIB} -r--------`);
  // and when the image is whole again
  await truncate(image, 8 * MIB);
  await bench.succeed(['resize', disk]);
  await bench.succeed(['reread', disk]);
  t.equal(await bench.sh('stat -c "%s %A" "$1"2', disk), `${6 * MIB} -rw-------`);
}

// util-linux/util-linux #396
async function largeSectors(t: Test, bench: Bench): Promise<void> {
  const gpt = await imageOf(bench, 'nvme.img', gptDisk(4 * MIB, [{ first: 100, last: 199, name: 'root' }], 4096));
  const found = await bench.attach('--partitions', gpt);
  t.ok(await isRangeOf(bench, `${found}1`, gpt, 100 * 4096), 'a GPT tells by itself');
  const mbr = await mbrImage(bench, 'mo-disk.img', 4 * MIB, [{ type: 6, start: 100, count: 200 }]);
  const told = await bench.attach('--partitions', '--sector-size', '2048', mbr);
  t.ok(await isRangeOf(bench, `${told}1`, mbr, 100 * 2048));
  const saved = await bench.succeed(['ls', '--json']);
  await bench.succeed(['detach', '--all']);
  await bench.sh('printf %s "$1" > disks.json', saved);
  await bench.attach('--config', 'disks.json');
  t.match((await busInfo(bench)).vbds, [{ sectorSize: null }, { sectorSize: 2048, partitions: [{ offset: 204800 }] }]);
}

// util-linux/util-linux #1156
async function formerFat(t: Test, bench: Bench): Promise<void> {
  const sector = Buffer.alloc(SECTOR);
  sector.write('\xebX\x90mkfs.fat', 'latin1');
  sector.writeUInt16LE(512, 11);
  sector.set([4, 4, 0, 2], 13);
  sector.writeUInt8(0xf8, 21);
  const stick = await imageOf(
    bench,
    'stick.img',
    putMbr(sector, 0, [{ type: 0x83, start: 2048, count: 4096 }]),
    4 * MIB,
  );
  const disk = await bench.attach('--partitions', stick);
  t.ok(await isRangeOf(bench, `${disk}1`, stick, MIB));
}

async function pipeBackup(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('data.img', 6 * MIB + 777, 2 * MIB);
  await bench.attach(image);
  const save = 'node=$1 cli=$2; "$node" "$cli" save xvda - | gzip -1 > backup.gz; gunzip -c backup.gz | cmp - data.img';
  const { status, stderr } = await bench.try(save, process.execPath, bench.program);
  t.same({ status, stderr }, { status: 0, stderr: '' });
  const early = await bench.try('"$1" "$2" save xvda - | head -c 1000 | wc -c', process.execPath, bench.program);
  t.match(early, { stdout: /^1000\n$/, stderr: /the copy is incomplete: it cannot be written: EPIPE/ });
  t.match(await bench.fusetap(['save', '--json', 'xvda', '-']), { status: 2, stderr: /omit --json/ });
  t.match((await busInfo(bench)).vbds, [{ state: 'running' }], 'and the vbd goes on');
}

// rusty-backup PR 65
async function appleMap(t: Test, bench: Bench): Promise<void> {
  const bytes = Buffer.alloc(2 * SECTOR);
  bytes.write('ER', 0);
  bytes.write('PM', SECTOR);
  const image = await imageOf(bench, 'mac.img', bytes, MIB);
  const { stderr } = await bench.fusetap(['attach', '--partitions', image]);
  t.match(stderr, /^fusetap: xvda: the disk has an Apple partition map, which fusetap does not read\n$/);
}

async function unboundLoop(t: Test, bench: Bench): Promise<void> {
  if (whyNot('losetup') !== false) return void t.pass('there are no loop devices');
  // other tests take the first free one
  const device = await bench.sh(
    'for d in $(ls -v /dev/loop[0-9]* | tac); do losetup "$d" >&- 2>&- || { echo "$d"; break; }; done',
  );
  if (device === '') return void t.pass('all loop devices are in use');
  t.match(await bench.fusetap(['attach', device]), {
    status: 2,
    stderr: /no image is bound to \/dev\/loop\d+: losetup/,
  });
}

// a write of one's own that fails moves the time of the image, too
t.test(
  'is not blamed on others that the file system of the image was full',
  { skip: whyNot('mkfs.ext4') },
  async (t) => {
    const bench = await openBench(t, KERNEL);
    const below = await bench.image('below.img', 16 * MIB);
    const directory = await bench.makeDirectory('full');
    await bench.sh('mkfs.ext4 -q -F "$1"; mount -o loop "$1" "$2"; truncate -s 64M "$2/disk.img"', below, directory);
    const disk = await bench.attach(`${directory}/disk.img`);
    const writing = bench.startProgram('dd', ['if=/dev/urandom', `of=${disk}`, 'bs=1M', 'conv=notrunc', 'status=none']);
    t.match(await collect(writing), { status: 1, stderr: /No space left/ });
    t.match(await bench.fusetap(['detach', 'xvda']), { status: 0, stderr: '' });
  },
);
