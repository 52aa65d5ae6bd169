/**
 * Containers, as docs/containers.md has them: namespaces with a /dev and a /run of their own, without loop devices, udev and
 * systemd. The container is made by unshare(1), because an engine for containers is not needed for that.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { KERNEL } from '../survival/bus.js';
import { execute, isInstalled, type Outcome } from './command.js';
import { type Bench, openBench, whyNot } from './fixtures.js';

t.setTimeout(300_000);
const MAIN = fileURLToPath(new URL('../../cli/main.cjs', import.meta.url));
const missing = ['unshare', 'setpriv', 'mkfs.ext4', 'fuse2fs'].filter((program) => !isInstalled(program));
const skip =
  whyNot() ||
  (process.geteuid?.() === 0 ? false : 'needs root') ||
  (missing.length > 0 ? `not installed: ${missing.join(', ')}` : false);

/** Makes the devices and directories of a container, and runs the words after the first. $1: whether it gets /dev/fuse. */
const ENTER = `set -e
mount -t tmpfs -o mode=755 dev /dev
device() { mknod -m 666 "/dev/$1" c "$2" "$3"; }
device null 1 3; device zero 1 5; device full 1 7; device random 1 8; device urandom 1 9; device tty 5 0
ln -s /proc/self/fd /dev/fd
if [ "$1" = fuse ]; then device fuse 10 229; fi
mount -t tmpfs -o mode=755 run /run; mkdir /run/mnt
shift; exec "$@"`;

interface Container {
  readonly fuse: boolean;
  /** words before the script, for example to take a capability away */
  readonly within?: readonly string[];
}

async function run(bench: Bench, { fuse, within = [] }: Container, script: string): Promise<Outcome> {
  const tool = bench.path('fusetap');
  await writeFile(tool, `#!/bin/sh\nexec ${process.execPath} ${MAIN} "$@"\n`, { mode: 0o755 });
  const inside = [...within, 'sh', '-c', `PATH=$PATH:${join(tool, '..')}; unset FUSETAP_RUNTIME_DIR; ${script}`];
  const namespaces = ['--mount', '--propagation', 'slave', '--pid', '--ipc', '--fork', '--mount-proc', '--kill-child'];
  const enter = ['sh', '-c', ENTER, 'enter', fuse ? 'fuse' : 'no', ...inside];
  return await execute('unshare', [...namespaces, ...enter], { timeoutMs: 120_000 });
}

t.test('in a container with /dev/fuse: attach, mount without loop devices, detach', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const image = await bench.image('disk.img', 32 << 20);
  await bench.sh('mkfs.ext4 -q -F "$1"', image);
  const { stdout, stderr, status } = await run(
    bench,
    { fuse: true },
    `set -e
    vbd=$(fusetap attach ${image}); [ -e /dev/loop0 ] && exit 9
    fusetap ls --quiet
    fusetap mount $vbd /run/mnt; echo hello > /run/mnt/greeting
    kill -9 $(fusetap show --json | sed -n 's/.*"serverPid": \\([0-9]*\\).*/\\1/p' | head -1)
    cat /run/mnt/greeting
    fusetap umount /run/mnt
    grep -c ' /run/[bf].* fuse' /proc/self/mountinfo || true`,
  );
  t.equal(status, 0, stderr);
  t.match(stdout, /xvda .*disk.img/);
  t.match(stdout, /\nhello\n0\n$/, 'the server is replaced, and nothing stays mounted');
  t.match(await bench.sh('debugfs -R "cat greeting" "$1" 2> /dev/null', image), 'hello');
});

t.test('in a container that may not have a bus, one line says what is missing', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const image = await bench.image('disk.img', 1 << 20);
  const attach = `fusetap attach ${image}`;
  const without = await run(bench, { fuse: false }, attach);
  t.match(without, {
    status: 3,
    stderr: /^fusetap: cannot open \/dev\/fuse: .*in a container, .*--device \/dev\/fuse\n$/,
  });
  const within = ['setpriv', '--bounding-set', '-sys_admin', '--inh-caps', '-sys_admin', '--'];
  const unable = await run(bench, { fuse: true, within }, attach);
  t.match(unable, { status: 5, stderr: /^fusetap: cannot mount .*: in a container, add the capability SYS_ADMIN\n$/ });
  const offline = await run(
    bench,
    { fuse: false },
    `fusetap create ${image}.qcow2 --format qcow2 8M && fusetap info ${image}.qcow2`,
  );
  t.match(offline, { status: 0, stdout: /qcow2/ }, 'what needs no bus works');
});

t.test('a vbd of the machine in a container: a file, which keeps the vbd attached', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const image = await bench.image('disk.img', 1 << 20);
  const vbd = await bench.attach(image);
  const bound = `touch /run/disk; mount --bind ${vbd} /run/disk; exec 3<> /run/disk`;
  const detach = `${process.execPath} ${MAIN} detach ${vbd}`;
  const env = `FUSETAP_RUNTIME_DIR=${bench.runtimeDir}`;
  const script = `${bound}; printf inside >&3; exec 3>&-; ${env} ${detach}; echo status $?`;
  // no /dev/fuse and no capability to mount: what is passed in needs none
  const { stdout, stderr } = await run(bench, { fuse: false }, script);
  t.match(stdout, /^status 4$/m, stderr);
  t.match(stderr, /in use by a mount at \/run\/disk/);
  t.equal(await bench.sh('head -c 6 "$1"', vbd), 'inside');
  await bench.succeed(['detach', vbd]);
});
