/** What people want of an image that they do not want to change, and of disks that are made of several files. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { vhdFooter } from '../drivers/images/vhd.js';
import { type Bench, openBench, whyNot } from '../e2e/fixtures.js';
import { replaceServer } from '../e2e/kill-server.js';
import { KERNEL } from '../survival/bus.js';

t.setTimeout(300_000);

const MIB = 1 << 20;

const WISHES: Record<string, (t: Test, bench: Bench) => Promise<void>> = {
  'tries a change of a disk and throws it away': throwAway,
  'boots twenty guests from one golden image': twentyGuests,
  'sees what a repair would do': tryRepair,
  'keeps the change after all': keepChange,
  'goes on with a snapshot after a crash': afterCrash,
  'mounts an image and finds it as it was': mountAndForget,
  'mounts a snapshot from fstab': mountByWords,
  'uses the disk inside an archive': insideArchive,
  'tries a VHD in memory before it changes the file': vhdInMemory,
  'attaches the same disks again': sameAgain,
  'does not let an image open the files of others': namedFiles,
  'puts the pieces of an image together': pieces,
};

t.test(
  'snapshots',
  { skip: whyNot('mkfs.ext4', 'losetup', 'e2label', 'tar', 'split', 'perl', 'e2fsck') },
  async (t) => {
    for (const [wish, grant] of Object.entries(WISHES)) {
      await t.test(wish, async (t) => {
        const bench = await openBench(t, KERNEL);
        await grant(t, bench);
        await bench.fusetap(['stop', '--all', '--force']);
        t.same(await bench.loops(), [], 'no loop device is left');
      });
    }
  },
);

/** An image with an ext4 of that label. */
async function ext4(bench: Bench, name = 'golden.img', label = 'golden'): Promise<string> {
  const image = await bench.image(name, 16 * MIB);
  await bench.sh('mkfs.ext4 -q -F -L "$2" "$1"', image, label);
  return image;
}

/** Its bytes and the time of its last change. */
async function stateOf(image: string): Promise<unknown> {
  const { mtimeMs, size, blocks } = await stat(image);
  return { mtimeMs, size, blocks, bytes: (await readFile(image)).toString('base64') };
}

async function throwAway(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const before = await stateOf(image);
  const path = await bench.attach('--snapshot', image);
  t.match(await bench.list(), [{ driver: 'snapshot', image, mode: 'w', share: null }]);
  await bench.sh('e2label "$1" scratch; sync -f "$1"', path);
  t.equal(await bench.sh('e2label "$1"', path), 'scratch');
  t.match(await bench.fusetap(['attach', image]), { status: 4, stderr: /golden\.img is attached with mode r/ });
  t.match(await bench.fusetap(['reset', path]), { status: 0 });
  t.equal(await bench.sh('e2label "$1"', path), 'golden', 'reset forgets it, too');
  await bench.sh('e2label "$1" again', path);
  await bench.detach(path);
  t.same(await stateOf(image), before);
  const readOnly = await bench.attach('--snapshot', '-r', image);
  t.match(await bench.try('e2label "$1" no', readOnly), { status: 1 });
}

async function twentyGuests(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const before = await stateOf(image);
  const paths = (await bench.attach('--snapshot', ...Array<string>(20).fill(image))).split('\n');
  t.equal(paths.length, 20);
  await bench.sh('n=0; for path; do n=$((n + 1)); e2label "$path" "guest-$n" & done; wait', ...paths);
  t.equal(
    await bench.sh('for path; do e2label "$path"; done', ...paths),
    paths.map((_, n) => `guest-${n + 1}`).join('\n'),
  );
  await bench.detach('--all');
  t.same(await stateOf(image), before);
}

async function tryRepair(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  // the free blocks of the superblock are wrong
  await bench.sh('printf "\\001\\000\\000\\000" | dd of="$1" bs=1 seek=1036 conv=notrunc status=none', image);
  const before = await stateOf(image);
  const repaired = await bench.fusetap(['run', '--snapshot', image, '--', 'e2fsck', '-fy', '{}']);
  t.match(repaired, { status: 1, stdout: /FILE SYSTEM WAS MODIFIED/ });
  t.same(await stateOf(image), before);
}

async function keepChange(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 8 * MIB, 8 * MIB);
  const path = await bench.attach('--snapshot', image);
  t.equal(await bench.succeed(['diff', path]), 'total 0 (0): 0 data, 0 zeros');
  // more ranges than one answer has
  const script = 'open F, "+<", shift; for (0 .. 699) { seek F, $_ * 8192, 0; print F "changed $_"; F->flush }';
  await bench.sh('perl -MIO::Handle -e "$1" "$2"; fallocate -z -o 6M -l 64K "$2"', script, path);
  const lines = (await bench.succeed(['diff', path])).split('\n');
  t.equal(lines.length, 702);
  t.match(lines.slice(0, 2), ['0 4096 data', '8192 4096 data']);
  t.same(lines.slice(-2), [
    '6291456 65536 zeros',
    `total ${700 * 4096 + 65536} (2.8M): ${700 * 4096} data, 65536 zeros`,
  ]);
  const json = JSON.parse(await bench.succeed(['diff', '--json', path])) as Record<string, unknown>;
  t.match(json, { vdev: 'xvda', size: 8 * MIB, dataBytes: 700 * 4096, zerosBytes: 65536 });
  t.same((json.changes as object[])[700], { offset: 6291456, length: 65536, kind: 'zeros' });
  // the ranges are all that differs
  const copy = 'dd if="$1" of="$2" bs=4K skip="$3" seek="$3" count="$4" iflag=skip_bytes,count_bytes oflag=seek_bytes';
  await bench.succeed(['save', path, bench.path('saved.img')]);
  await bench.sh(
    `cp "$2" patched.img; fusetap diff "$1" | while read -r at length kind; do [ "$at" = total ] || ${copy
      .replace('$2', 'patched.img')
      .replaceAll('"$3"', '"$at"')
      .replace('"$4"', '"$length"')} conv=notrunc status=none; done; cmp patched.img saved.img`.replace(
      'fusetap',
      `'${process.execPath}' '${bench.program}'`,
    ),
    path,
    image,
  );
}

async function afterCrash(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const path = await bench.attach('--snapshot', image);
  await bench.sh('e2label "$1" before', path);
  const changes = await bench.succeed(['diff', path]);
  await replaceServer(bench);
  t.equal(await bench.sh('e2label "$1"', path), 'before');
  t.equal(await bench.succeed(['diff', path]), changes);
  t.match(await bench.fusetap(['upgrade']), { status: 0 });
  t.equal(await bench.sh('e2label "$1"', path), 'before');
}

async function mountAndForget(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const before = await stateOf(image);
  const [one, two, three] = await Promise.all(['one', 'two', 'three'].map((name) => bench.makeDirectory(name)));
  if (one === undefined || two === undefined || three === undefined) throw new Error('no directories');
  await bench.succeed(['mount', '--snapshot', image, one]);
  await bench.succeed(['mount', `snapshot:${image}`, two]);
  await bench.sh('touch "$1/first" "$2/second"; sync -f "$1"; sync -f "$2"', one, two);
  await bench.succeed(['mount', '--read-only', '-o', 'noload', image, three]);
  const drivers = (await bench.list()).map(({ driver }) => driver);
  t.same(drivers, ['snapshot', 'snapshot', 'aio'], 'no mount joins the disk of another');
  t.equal(
    await bench.sh('cd "$1"; ls "$1" "$2" "$3" | grep -v lost', one, two, three),
    [`${one}:`, 'first', '', `${three}:`, '', `${two}:`, 'second'].join('\n'),
  );
  await bench.succeed(['umount', one, two, three]);
  t.same(await bench.list(), [], 'umount detaches them');
  t.same(await stateOf(image), before);
}

async function mountByWords(t: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  const before = await stateOf(image);
  const at = await bench.makeDirectory('mnt');
  await bench.succeed(['mount', '-o', 'snapshot,backing=none,noatime', image, at]);
  t.match(await bench.list(), [{ driver: 'snapshot', image, backing: 'none', mounts: [at] }]);
  await bench.sh('touch "$1/file"', at);
  await bench.succeed(['umount', at]);
  t.same(await stateOf(image), before);
}

async function insideArchive(t: Test, bench: Bench): Promise<void> {
  await ext4(bench, 'a.img', 'label-a');
  await ext4(bench, 'b.img', 'label-b');
  await bench.sh('tar -cf box.ova a.img b.img');
  const box = bench.path('box.ova');
  t.match(await bench.fusetap(['attach', `tar:${box}`]), { status: 2, stderr: /a\.img.*b\.img/ });
  const before = await stateOf(box);
  const path = await bench.attach('--snapshot', '--option', 'member=b.img', `tar:${box}`);
  t.equal(await bench.sh('e2label "$1"', path), 'label-b');
  const disk = {
    driver: 'snapshot',
    options: {},
    on: { file: { driver: 'tar', options: { member: 'b.img' }, on: { file: { file: box } } } },
  };
  t.same((await bench.list())[0]?.disk, disk);
  const shown = await bench.succeed(['show', path]);
  t.match(shown, /^disk +snapshot\ndisk {3,}file: tar, member=b\.img\ndisk {3,}file: \/.*box\.ova$/m);
  const below = await bench.attach('--option', 'file/member=a.img', `snapshot:tar:${box}`);
  t.equal(await bench.sh('e2label "$1"', below), 'label-a');
  t.match(await bench.succeed(['ls']), /xvdb +\d+ +snapshot +w .*box\.ova/);
  await bench.sh('e2label "$1" changed', below);
  await bench.detach('--all');
  const [one, two] = [await bench.makeDirectory('one'), await bench.makeDirectory('two')];
  await bench.succeed(['mount', '-r', '--option', 'member=a.img', `tar:${box}`, one]);
  await bench.succeed(['mount', '-r', '--option', 'member=b.img', `tar:${box}`, two]);
  t.equal((await bench.list()).length, 2, 'another member is another disk');
  await bench.succeed(['umount', box]);
  t.same(await stateOf(box), before);
}

async function vhdInMemory(t: Test, bench: Bench): Promise<void> {
  const raw = await ext4(bench, 'raw.img');
  const vhd = bench.path('a.vhd');
  await writeFile(vhd, Buffer.concat([await readFile(raw), vhdFooter({ size: 16 * MIB })]));
  const before = await stateOf(vhd);
  for (const spec of [`ram:vhd:${vhd}`, `snapshot:ram:vhd:${vhd}`, `snapshot:vhd:${vhd}`]) {
    const path = await bench.attach(spec);
    t.match(await bench.list(), [{ size: 16 * MIB, image: vhd, driver: spec.split(':')[0] }]);
    t.equal(await bench.sh('e2label "$1"; e2label "$1" changed; e2label "$1"', path), 'golden\nchanged');
    await bench.detach(path);
    t.same(await stateOf(vhd), before, spec);
  }
  t.match(await bench.fusetap(['run', `vhd:${vhd}`, '--', 'e2label', '{}', 'changed']), { status: 0 });
  t.equal(await bench.succeed(['run', '-r', `tap:vhd:${vhd}`, '--', 'e2label', '{}']), 'changed');
}

async function sameAgain(t: Test, bench: Bench): Promise<void> {
  await ext4(bench, 'a.img');
  await ext4(bench, 'b.img');
  await bench.sh('tar -cf box.ova a.img');
  const file = (name: string) => ({ file: bench.path(name) });
  const both = {
    driver: 'concat',
    on: { part0: file('a.img'), part1: { driver: 'aio', on: { file: file('b.img') } } },
  };
  await writeFile(
    bench.path('disks.json'),
    JSON.stringify([{ disk: both, mode: 'r' }, 'format=raw, vdev=xvdb, target=a.img']),
  );
  await bench.attach('--config', 'disks.json', '-r').catch(() => {});
  t.match(await bench.fusetap(['attach', '--config', 'disks.json', '--snapshot', '--backing', 'none']), { status: 0 });
  await bench.attach('-r', '--option', 'file/member=a.img', 'ram:tar:box.ova', 'xvdc');
  const facts = (vbds: VbdInfo[]) =>
    vbds.map(({ driver, image, vdev, mode, size, options, disk, backing }) => ({
      driver,
      image,
      vdev,
      mode,
      size,
      options,
      disk,
      backing,
    }));
  const before = facts(await bench.list());
  t.match(before, [
    {
      driver: 'snapshot',
      image: null,
      size: 32 * MIB,
      mode: 'r',
      backing: 'none',
      disk: { on: { file: { driver: 'concat' } } },
    },
    { driver: 'snapshot', image: bench.path('a.img'), vdev: 'xvdb', disk: undefined },
    { driver: 'ram', image: bench.path('box.ova'), disk: { on: { file: { options: { member: 'a.img' } } } } },
  ]);
  const lines = await bench.fusetap(['config']);
  t.match(lines, {
    status: 2,
    stdout:
      /^format=raw, vdev=xvdb, access=rw, target=snapshot:\/.*a\.img\nformat=raw, vdev=xvdc, .*target=ram:tar:\/.*box\.ova$/m,
    stderr:
      /xvda of bus 0: a line of xl cannot say a disk of concat(.*\n)*.*xvdc of bus 0: .*--option file\/member=a\.img/,
  });
  for (const printed of [
    ['ls', '--json'],
    ['config', '--json'],
  ]) {
    await writeFile(bench.path('saved.json'), (await bench.fusetap(printed)).stdout);
    await bench.detach('--all');
    t.match(await bench.fusetap(['attach', '--config', 'saved.json']), { status: 0, stderr: '' }, printed.join(' '));
    // a line of config cannot say a policy
    const again = facts(await bench.list());
    t.same(
      printed[0] === 'ls'
        ? again
        : again.map(({ backing, ...rest }) => ({ ...rest, backing: backing ?? 'none' })).slice(0, 2),
      printed[0] === 'ls' ? before : before.slice(0, 2),
    );
  }
}

async function namedFiles(t: Test, bench: Bench): Promise<void> {
  await bench.makeDirectory('images');
  await bench.makeDirectory('secrets');
  await bench.image('secrets/flat.img', MIB, MIB);
  await bench.image('images/own.img', MIB, MIB);
  const vmdk = async (name: string, extent: string): Promise<string> => {
    const lines = [
      '# Disk DescriptorFile',
      'version=1',
      'CID=12345678',
      'parentCID=ffffffff',
      'createType="monolithicFlat"',
    ];
    await writeFile(bench.path(`images/${name}`), [...lines, `RW ${MIB / 512} FLAT "${extent}" 0`, ''].join('\n'));
    return `vmdk:${bench.path(`images/${name}`)}`;
  };
  const [own, other] = [await vmdk('own.vmdk', 'own.img'), await vmdk('other.vmdk', '../secrets/flat.img')];
  const denied = { status: 5, stderr: /secrets\/flat\.img/ };
  t.match(await bench.fusetap(['attach', other]), denied);
  t.match(await bench.fusetap(['attach', '--backing', 'same-directory', other]), denied);
  t.match(await bench.fusetap(['attach', '--backing', 'none', own]), { status: 5, stderr: /own\.img/ });
  t.match(await bench.fusetap(['run', other, '--', 'true']), { status: 125, stderr: denied.stderr });
  t.match(await bench.fusetap(['mount', other, dirname(bench.path('images/x'))]), denied);
  const path = await bench.attach(own);
  t.match(await bench.list(), [{ driver: 'vmdk', disk: { on: { extent0: { file: bench.path('images/own.img') } } } }]);
  t.match(await bench.fusetap(['swap', path, other]), denied);
  t.match(await bench.fusetap(['swap', '--backing', 'any', path, other]), { status: 0 });
  t.match(await bench.list(), [{ backing: 'any', image: bench.path('images/other.vmdk') }]);
  t.match(await bench.succeed(['show', path]), /^backing +any$/m);
  t.match(await bench.fusetap(['run', '--backing', 'any', '-r', own, '--', 'cmp', '{}', 'images/own.img']), {
    status: 0,
  });
}

async function pieces(_: Test, bench: Bench): Promise<void> {
  const image = await ext4(bench);
  await bench.sh('split -b 5M -d -a 3 --numeric-suffixes=1 "$1" "$1".', image);
  const path = await bench.attach('-r', `split:${image}.001`);
  await bench.sh('cmp "$1" "$2"', path, image);
}
