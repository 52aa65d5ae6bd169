/** Mounts by FUSE programs: for an ordinary user, and for root where there are no loop devices. */
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { eventually, isInstalled } from './command.js';
import { type Bench, forEachWay, JUST_USER, onDefaultTransport, openBench } from './fixtures.js';

t.setTimeout(200_000);

const MIB = 1 << 20;
const CLI = fileURLToPath(new URL('../../cli/main.cjs', import.meta.url));

interface Format {
  readonly programs: readonly string[];
  /** makes the image $1, with the file `hello` in it, which has 6 bytes */
  readonly make: string;
  /** only root can use the program */
  readonly isForRoot?: true;
  readonly canWrite?: true;
}

const FORMATS: Readonly<Record<string, Format>> = {
  fat: { programs: ['fusefat', 'mkfs.fat', 'mcopy'], make: 'mkfs.fat "$1" > out; mcopy -i "$1" hello ::hello' },
  iso: { programs: ['fuseiso', 'genisoimage'], make: 'genisoimage -quiet -r -o "$1" hello' },
  ntfs: {
    programs: ['ntfs-3g', 'mkntfs', 'ntfscp'],
    make: 'mkntfs -F -q "$1" > out 2>&1; ntfscp -q "$1" hello hello > out 2>&1',
    isForRoot: true,
    canWrite: true,
  },
  ext4: {
    programs: ['fuse2fs', 'mkfs.ext4'],
    make: 'mkfs.ext4 -q -F "$1"; debugfs -w -R "write hello hello" "$1"',
    canWrite: true,
  },
};

async function makeImage(bench: Bench, name: string, { make }: Format): Promise<string> {
  const image = await bench.image(`${name}.img`, 16 * MIB);
  await bench.sh(`echo hello > hello; { ${make}; } 2>&1`, image);
  return image;
}

function whyNot({ programs }: Format): string | false {
  const missing = programs.filter((program) => !isInstalled(program));
  return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
}

forEachWay(t, JUST_USER, async (t, transport) => {
  const bench = await openBench(t, transport);
  const at = await bench.makeDirectory('mnt');
  await bench.begin('--bus', 'mounts');
  for (const [name, format] of Object.entries(FORMATS)) {
    await t.test(name, { skip: whyNot(format) }, async (t) => mountAsUser(t, { bench, at, name, format }));
  }
  await t.test('two partitions of one image', { skip: whyNot(FORMATS.ext4 as Format) }, async (t) =>
    mountBothPartitions(t, bench),
  );
  await bench.succeed(['stop', '--bus', 'mounts']);
});

interface Case {
  readonly bench: Bench;
  readonly at: string;
  readonly name: string;
  readonly format: Format;
}

async function mountAsUser(t: Test, { bench, at, name, format }: Case): Promise<void> {
  const image = await makeImage(bench, name, format);
  if (format.isForRoot) {
    t.match(await bench.fusetap(['mount', image, at]), { status: 6, stderr: /only root can mount ntfs/ });
    t.same(await bench.list(), []);
    return;
  }
  const mounted = await bench.fusetap(['mount', '-o', 'nofail,_netdev,x-a.b,rw', image, at]);
  t.match(mounted, {
    status: 0,
    stdout: '',
    stderr: format.canWrite ? /^$/ : /mnt is mounted read-only: [^\n]*cannot (be written|write)/,
  });
  t.equal(await bench.sh('cat "$1/hello"', at), 'hello');
  t.match(await bench.try('echo x > "$1/more"', at), { status: format.canWrite ? 0 : 2 });
  await bench.sh('fusermount3 -u "$1"', at);
  await eventually('the detach', 60_000, async () => (await bench.list()).length === 0);
}

/** The second mount follows on the first, whose program may still be writing. */
async function mountBothPartitions(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('two.img', 18 * MIB);
  const part = await makeImage(bench, 'ext4', FORMATS.ext4 as Format);
  await bench.sh(
    'truncate -s 8M "$2"; mkfs.ext4 -q -F "$2"; printf "start=2048,size=16384\nstart=18432,size=16384\n" | sfdisk -q "$1"; for n in 1 9; do dd if="$2" of="$1" bs=1M seek=$n conv=notrunc status=none; done',
    image,
    part,
  );
  const [one, two] = [await bench.makeDirectory('one'), await bench.makeDirectory('two')];
  await bench.succeed(['mount', '--partition', '1', image, one]);
  await bench.succeed(['mount', '--partition', '2', image, two]);
  t.match(await bench.fusetap(['mount', '--partition', '2', image, one]), { status: 4, stderr: /two already/ });
  await bench.sh('echo 1 > "$1/written"; fusermount3 -u "$1"', one);
  await bench.succeed(['mount', '--partition', '1', image, one]);
  t.equal(await bench.sh('cat "$1/written"', one), '1');
  await bench.succeed(['umount', one, two]);
  t.same(await bench.list(), []);
}

/** /dev without loop devices, in a mount namespace of its own. */
const WITHOUT_LOOPS = `mkdir dev; mount -t tmpfs none dev; cp -a /dev/null /dev/zero /dev/urandom /dev/fuse dev
mount --move dev /dev`;

onDefaultTransport(t, ['unshare'], async (t, transport) => {
  const formats = Object.entries(FORMATS).filter(([, format]) => whyNot(format) === false);
  const skip = formats.length === 0 ? 'no program is installed' : false;
  await t.test('root in a container without loop devices', { skip }, async (t) => {
    const bench = await openBench(t, transport);
    for (const [name, format] of formats) await makeImage(bench, name, format);
    await bench.image('swap.img', MIB);
    const script = `${WITHOUT_LOOPS}
      fusetap() { "$node" "$cli" "$@"; }
      mkdir mnt; mkswap swap.img > out 2>&1
      for name in "$@"; do
        fusetap mount --quiet $name.img mnt
        cat mnt/hello; echo x > mnt/more 2>&- && echo written
        fusetap umount mnt
      done
      fusetap mount -t xfs $1.img mnt || echo $?
      fusetap mount swap.img mnt || echo $?`;
    const env = { node: process.execPath, cli: CLI };
    const names = formats.map(([name]) => name);
    const ran = await bench.execute('unshare', ['-m', '--propagation', 'slave', 'sh', '-uc', script, 'sh', ...names], {
      env,
      timeoutMs: 120_000,
    });
    const lines = formats.flatMap(([, { canWrite }]) => ['hello', ...(canWrite ? ['written'] : [])]);
    t.equal(ran.stdout, [...lines, '6', '2', ''].join('\n'), ran.stderr);
    t.match(ran.stderr, /mounting xfs needs loop devices, and there are none here: give the container/);
    t.match(ran.stderr, /it is swap space/);
    t.same(await bench.busProcesses(), []);
  });
});
