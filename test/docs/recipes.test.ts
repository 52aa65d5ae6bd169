/**
 * Every command of docs/recipes.md, typed in a shell as it stands there, but for the directories: those of the machine
 * become directories of the test. Each recipe has a stage (what must be there before), and signs that it worked.
 */
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { eventually, isInstalled } from '../e2e/command.js';
import { forEachWay, JUST_NAMESPACE, onDefaultTransport, openBench, type TestTransport } from '../e2e/fixtures.js';
import { readPage, readScripts, runScript } from './session.js';

t.setTimeout(900_000);

const PAGE = 'docs/recipes.md';
const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

interface Recipe {
  /** programs that it needs beside bash */
  readonly programs?: readonly string[];
  /** what is there before, as commands */
  readonly stage: readonly string[];
  /** directories of the page that become directories of the test */
  readonly directories?: readonly string[];
  /** commands after each block of the page, by its number */
  readonly after?: Readonly<Record<number, string>>;
  /** what the whole prints, in this order */
  readonly prints: RegExp;
  /** what runs the shell */
  readonly run?: readonly string[];
  /** in a user namespace, as in a container */
  readonly inContainer?: boolean;
}

const GOLDEN = 'fusetap create golden.img 16M; mkfs.ext4 -q -L golden golden.img';
const DISK = 'fusetap create disk.img 16M; mkfs.ext4 -q disk.img';
const SOME_IMAGES =
  'mkdir images; for name in a b c; do fusetap create images/$name.img 1M; mkfs.ext2 -q images/$name.img; done';

/**
 * In a mount namespace: /sbin becomes a directory of links that can be written to, because mount(8) searches helpers only
 * there; mount(8) reads a table of the test, and keeps its notes there; the helpers are on the PATH, as npm puts them there.
 */
const OWN_SBIN = [
  'mkdir real links bin; SBIN=$(realpath /sbin); mount --bind "$SBIN" real',
  'ln -s "$PWD"/real/* links/; mount --bind links "$SBIN"',
  'export LIBMOUNT_FSTAB=/etc/fstab LIBMOUNT_UTAB=/etc/utab PATH="$PWD/bin:$PATH"; touch /etc/utab',
  `for name in mount umount; do echo 'exec "$NODE" "\${CLI%/*}/mount-helper/'$name'.js" "$@"' > bin/$name.fusetap; done`,
  "sed -i '1i #!/bin/sh' bin/*; chmod +x bin/*",
];

const RECIPES: Readonly<Record<string, Recipe>> = {
  'Change a Raspberry Pi image': {
    programs: ['sfdisk', 'mkfs.ext4', 'losetup'],
    stage: [
      "fusetap create rpi.img 64M; printf 'label: dos\\n,32M,c\\n,,L\\n' | sfdisk -q rpi.img",
      'V=$(fusetap attach --partitions rpi.img); mkfs.ext4 -q "$V"1; mkfs.ext4 -q -L rootfs "$V"2',
      'mount "$V"2 /mnt; mkdir /mnt/boot; touch /mnt/root-file; umount /mnt; fusetap detach $V',
    ],
    directories: ['/mnt'],
    after: { 1: 'rmdir mnt/p1 mnt/p2' },
    prints: /^boot\nlost\+found\nroot-file\nboot\nlost\+found\nroot-file\n$/,
  },
  'A disk for a CI job': {
    programs: ['mkfs.ext4', 'e2label'],
    stage: [
      GOLDEN,
      "printf '#!/bin/sh\\ne2label $1 >> labels; e2label $1 changed\\n' > test.sh; chmod +x test.sh",
      'JOB=17',
    ],
    after: { 2: 'sort -u labels; wc -l < labels; e2label golden.img' },
    // five copies, of which none saw the change of another
    prints: /^golden\n5\ngolden$/m,
  },
  'A fresh disk for each test': {
    programs: ['mkfs.ext4', 'e2label'],
    stage: [
      GOLDEN,
      "mkdir tests; for n in 1 2; do printf '#!/bin/sh\\ne2label $1; e2label $1 dirty\\n' > tests/$n.sh; chmod +x tests/$n.sh; done",
    ],
    prints: /^golden\n.*\ngolden$/m,
  },
  'Try a change and throw it away': {
    programs: ['mkfs.ext4', 'losetup', 'e2label', 'e2fsck'],
    stage: [DISK, 'cp --sparse=always disk.img before.img'],
    directories: ['/mnt'],
    after: {
      0: 'cmp disk.img before.img && echo as it was',
      1: 'cmp disk.img before.img && echo not repaired',
      2: 'e2label disk.img',
    },
    prints: /^as it was\n(.*\n)*not repaired\n(.*\n)*total \d+ \(.*\): \d+ data, 0 zeros\n.*new\.img\ntried$/m,
  },
  'Boot many guests from one golden image': {
    programs: ['mkfs.ext4', 'e2label'],
    stage: [GOLDEN, `printf '#!/bin/sh\\ne2label $1 changed; e2label $1 >> labels\\n' > boot.sh; chmod +x boot.sh`],
    after: { 0: 'wc -l < labels; e2label golden.img' },
    prints: /^guests +xvdt +\d+ +snapshot +w .*golden\.img\n(.*\n)*20\ngolden$/m,
  },
  'Disks by name, in any order': {
    programs: ['mkfs.ext4', 'e2label', 'sfdisk', 'blkid'],
    stage: [
      "fusetap create data.img 16M; fusetap create rpi.img 64M; printf 'label: dos\\n,32M,c\\n,,L\\n' | sfdisk -q rpi.img",
      `printf '#!/bin/sh\\ne2label $1\\n' > boot.sh; chmod +x boot.sh`,
    ],
    after: { 1: 'fusetap stop --bus guest' },
    prints: /data -> \.\.\/xvda\ndata\nBUS +VDEV +FSTYPE.*\nguest +xvda +ext2 +data /,
  },
  'A persistent overlay, and how to commit it': {
    programs: ['mkfs.ext4', 'e2label'],
    stage: [GOLDEN],
    after: { 0: 'e2label golden.img', 1: 'e2label golden.img' },
    prints: /^golden\n(.*\n)*\S*golden\.img\ntried$/m,
  },
  'Use a disk inside an OVA or a tar archive': {
    programs: ['mkfs.ext4', 'losetup', 'e2label', 'tar', 'qemu-img'],
    stage: [
      DISK,
      'V=$(fusetap attach disk.img); mount $V /mnt; touch /mnt/from-the-archive; umount /mnt; fusetap detach $V; e2label disk.img root',
      'qemu-img convert -f raw -O vpc -o subformat=fixed,force_size disk.img root.vhd; tar -cf box.ova disk.img root.vhd',
      'qemu-img convert -f raw -O vmdk -o subformat=streamOptimized disk.img disk.vmdk; tar -cf machine.ova disk.vmdk',
    ],
    directories: ['/mnt'],
    prints: /^from-the-archive\nlost\+found\nroot\nroot$/m,
  },
  'Put the pieces of an image together': {
    programs: ['mkfs.ext4', 'losetup', 'split'],
    stage: [DISK, 'split -b 5M -d -a 3 --numeric-suffixes=1 disk.img disk.img.'],
    directories: ['/mnt'],
    prints: /^lost\+found$/m,
  },
  'Back up a mounted disk': {
    programs: ['mkfs.ext4', 'losetup', 'fsfreeze', 'e2fsck'],
    stage: [DISK],
    directories: ['/mnt'],
    after: { 0: 'e2fsck -fn copy.img > check && echo the copy is clean' },
    prints: /^the copy is clean$/m,
  },
  'Instead of losetup': {
    programs: ['mkfs.ext4', 'losetup', 'blockdev'],
    stage: [GOLDEN],
    prints: /^16777216$/m,
  },
  'Mount at boot: /etc/fstab': {
    programs: ['sfdisk', 'mkfs.ext4', 'losetup', 'unshare'],
    stage: [
      'fusetap create /srv/images/data.img 64M; sfdisk -q /srv/images/data.img <<< ,,L',
      'V=$(fusetap attach --partitions /srv/images/data.img); mkfs.ext4 -q "$V"1; fusetap detach $V',
      ...OWN_SBIN,
    ],
    directories: ['/srv/images', '/data', '/etc'],
    run: ['unshare', '--mount'],
    after: { 1: 'fusetap ls --json' },
    prints: /^\[\]$/m,
  },
  'Keep vbds as services: systemd': {
    stage: [
      'npm() { echo "$PWD/lib"; }; systemctl() { echo systemctl "$@"; }',
      `mkdir lib; ln -s "${ROOT}" lib/fusetap`,
    ],
    directories: ['/etc/systemd/system', '/etc/fusetap'],
    after: { 0: '. etc/fusetap/xvda.conf; echo "$SPEC"; ls etc/systemd/system' },
    prints:
      /daemon-reload\nsystemctl enable --now fusetap-vbd@xvda\nram:\/srv\/images\/golden.img\nfusetap-bus@.service\nfusetap-export@.service\nfusetap-mount@.service\nfusetap-vbd@.service\nsystemctl enable --now fusetap-mount@srv-data.service\n/,
  },
  'In a container': {
    programs: ['mkfs.ext4', 'fuse2fs', 'debugfs'],
    stage: [DISK],
    directories: ['/mnt'],
    after: { 0: 'debugfs -R "cat greeting" disk.img 2>/dev/null' },
    prints: /^hello$/m,
    inContainer: true,
  },
  'Completion in every new shell': {
    programs: ['zsh', 'fish'],
    stage: [
      'export HOME="$PWD"; mkdir bin; export PATH="$PWD/bin:$PATH"',
      `printf '#!/bin/sh\nexec "$NODE" "$CLI" "$@"\n' > bin/fusetap; chmod +x bin/fusetap`,
      "echo 'autoload -Uz compinit; compinit -u' > .zshrc",
    ],
    after: {
      0: "bash -ic 'complete -p fusetap'; zsh -ic 'echo zsh $_comps[fusetap]'; fish -c 'complete --do-complete \"fusetap umou\"'",
    },
    prints: /^complete -F _fusetap fusetap\nzsh _fusetap\numount\t/m,
  },
  'Update fusetap under running buses': {
    stage: ['npm() { echo npm "$@"; }; fusetap start; fusetap start --bus two'],
    after: { 0: 'fusetap stop --all' },
    prints: /npm install -g \.\/fusetap-\S+\.tgz\n(.* ms .*\n){2}/,
  },
  'Many images, fast': {
    programs: ['mkfs.ext2', 'e2fsck'],
    stage: [SOME_IMAGES],
    prints: /\/bus\/0\/xvda\n.*\/bus\/0\/xvdb\n.*\/bus\/0\/xvdc\n/,
  },
};

const headings = [...readPage(PAGE).matchAll(/^## (.*)$/gm)].map(([, heading]) => heading ?? '');

t.test('each recipe is tried', async (t) => {
  t.same(Object.keys(RECIPES), headings);
});

const inContainer = (wanted: boolean) =>
  Object.entries(RECIPES).filter(([, recipe]) => !!recipe.inContainer === wanted);

onDefaultTransport(t, ['bash'], async (t, transport) => {
  for (const [heading, recipe] of inContainer(false)) await tryRecipe(t, transport, heading, recipe);
});

forEachWay(t, JUST_NAMESPACE, async (t, transport) => {
  for (const [heading, recipe] of inContainer(true)) await tryRecipe(t, transport, heading, recipe);
});

async function tryRecipe(t: Test, transport: TestTransport, heading: string, recipe: Recipe): Promise<void> {
  const missing = (recipe.programs ?? []).filter((program) => !isInstalled(program));
  const skip = missing.length > 0 && `not installed: ${missing.join(', ')}`;
  await t.test(heading, { skip }, async (t) => {
    const bench = await openBench(t, transport);
    const blocks = readScripts(readPage(PAGE, heading));
    const lines = blocks.flatMap((block, index) => [block, recipe.after?.[index] ?? '']);
    const directories = recipe.directories ?? [];
    const here = (text: string): string =>
      directories.reduce(
        (all, name) => all.replaceAll(new RegExp(`(?<!\\w)${name}(?![\\w.])`, 'g'), bench.directory + name),
        text,
      );
    const stage = [...directories.map((directory) => `mkdir -p ${directory}`), ...recipe.stage];
    const script = ['set -e', ...stage, ...lines].map(here);
    const { status, stdout } = await runScript(bench, script, recipe.run);
    t.equal(status, 0, stdout);
    t.match(stdout, recipe.prints);
    await eventually('the end of all buses', 10_000, async () => (await bench.traces()).length === 0);
    t.same(await bench.loops(), [], 'no loop device is left');
  });
}
