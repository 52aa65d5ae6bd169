/**
 * File systems on vbds: made there by their own tools, mounted through a loop device, filled with a real tree, and found
 * whole by their own checkers and by the sums of the tree, where the driver keeps it also after the next attach.
 */
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

t.setTimeout(180_000);

/** some hundred files of all sizes, up to one of 9 MB */
const TREE = dirname(fileURLToPath(import.meta.resolve('typescript')));

interface FileSystem {
  readonly name: string;
  readonly driver: 'aio' | 'sync' | 'ram';
  readonly sizeBytes: number;
  /** shell lines; `$1` is the vbd */
  readonly make: string;
  readonly check: string;
}

const FILE_SYSTEMS: readonly FileSystem[] = [
  { name: 'ext4', driver: 'sync', sizeBytes: 64 << 20, make: 'mkfs.ext4 -q -F "$1"', check: 'e2fsck -fn "$1"' },
  // the least that mkfs.xfs makes
  { name: 'xfs', driver: 'aio', sizeBytes: 300 << 20, make: 'mkfs.xfs -q "$1"', check: 'xfs_repair -n "$1"' },
  {
    name: 'btrfs',
    driver: 'ram',
    sizeBytes: 128 << 20,
    make: 'mkfs.btrfs -q "$1"',
    check: 'btrfs check --readonly "$1"',
  },
];

const PROGRAMS = ['losetup', 'mkfs.ext4', 'e2fsck', 'mkfs.xfs', 'xfs_repair', 'mkfs.btrfs', 'btrfs'];

/** Names, kinds, modes, sizes and targets of links, then the sums of all files. */
const SUMS = `cd "$1"; find . -name lost+found -prune -o -type d -printf '%P %y %m\\n' -o -printf '%P %y %m %s %l\\n' | sort
find . -type f -print0 | sort -z | xargs -0 cksum`;

t.test('file systems on vbds', (t) => {
  onDefaultTransport(t, PROGRAMS, async (t, transport) => {
    const bench = await openBench(t, transport);
    await bench.begin();
    await bench.makeDirectory('mnt');
    await makeTree(bench);
    for (const system of FILE_SYSTEMS) {
      await t.test(`${system.name} by ${system.driver}`, (t) => keepTree(t, bench, system));
    }
  });
  t.end();
});

/** A tree with what trees have: links, empty and sparse files, names with all that a name may have. */
function makeTree(bench: Bench): Promise<string> {
  return bench.sh(
    `
    mkdir -p tree/empty; cd tree
    cp -r "$1" typescript
    : > nothing; truncate -s 20M sparse; printf end >> sparse; printf middle | dd of=sparse bs=1 seek=7654321 conv=notrunc status=none
    echo spaces > ' a name  with spaces '; echo newline > 'new
line'; echo dash > ./-rf; echo quotes > "it's \\"quoted\\" \\\\ *?"; echo letters > 'Größe 尺寸 💾'
    echo long > "$(printf '%0255d' 0)"; chmod 4751 long* nothing 2>&- || chmod 4751 nothing
    ln -s nothing link; ln -s ../nowhere/at/all dangling; ln -s "$PWD" absolute; ln typescript/typescript.js hard
    `,
    TREE,
  );
}

async function keepTree(t: Test, bench: Bench, system: FileSystem): Promise<void> {
  const { name, driver, sizeBytes, make, check } = system;
  const image = await bench.image(`${name}.img`, sizeBytes);
  const sums = await bench.sh(SUMS, bench.path('tree'));
  let vbd = await bench.attach(`${driver}:${image}`);
  t.match(await bench.list(), [{ driver, passthrough: driver === 'ram' }]);
  await bench.sh(make, vbd);
  await mounted(bench, vbd, () => bench.sh('cp -a tree/. mnt'));
  await bench.sh(check, vbd);
  if (driver !== 'ram') {
    await bench.detach(vbd);
    await bench.sh(check, image);
    vbd = await bench.attach(`${driver}:${image}`);
  }
  await mounted(bench, vbd, async () => {
    t.equal(await bench.sh(SUMS, bench.path('mnt')), sums);
    await bench.sh('rm -r mnt/typescript');
  });
  await bench.sh(check, vbd);
  await bench.detach(vbd);
  if (driver === 'ram') t.equal(await bench.sh('tr -d "\\0" < "$1" | wc -c', image), '0', 'the image is as it was');
}

/** Not by `mount -o loop`, which asks for the file below each loop device: one that hangs would hang this. */
async function mounted(bench: Bench, vbd: string, work: () => Promise<unknown>): Promise<void> {
  const device = await bench.loop(vbd);
  await bench.sh('mount "$1" mnt', device);
  await work();
  await bench.sh('umount mnt; losetup -d "$1"', device);
}
