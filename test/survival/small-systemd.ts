/**
 * A small systemd that really boots and shuts down: PID 1 of namespaces of its own, with the files of this machine, but with
 * /run, /tmp, the units and the control groups for itself. A script of the test runs in it as root, as a service.
 *
 *      bootSystemd ──► unshare: pid, mount, ipc, uts ──► own group ──► unshare: cgroup ──► systemd ──► job.service: the script
 *                                                                                            └──► poweroff ──► all of it ends
 *
 * `container=` tells systemd to leave the devices of the machine alone when it ends.
 */
import { readFileSync } from 'node:fs';
import { cp, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { execute, isInstalled, type Outcome } from '../e2e/command.js';

const MAIN = fileURLToPath(new URL('../../cli/main.cjs', import.meta.url));
const CHECKOUT = fileURLToPath(new URL('../../../', import.meta.url)).replace(/\/$/, '');
const SHIPPED = fileURLToPath(new URL('../../../scripts/systemd/', import.meta.url));
const SYSTEMD = '/lib/systemd/systemd';
const FROM_DISTRIBUTION = '/usr/lib/systemd/system';
/** what a shutdown needs */
const BORROWED = [
  ...['shutdown.target', 'umount.target', 'final.target', 'poweroff.target', 'systemd-poweroff.service'],
  ...['local-fs.target', 'local-fs-pre.target', 'remote-fs.target', 'remote-fs-pre.target', 'slices.target'],
  ...['user.slice', 'machine.slice'],
];

/**
 * Makes the root directory and starts systemd. $1: a directory that is /run/t in there; $2: the name of the control group; $3: this
 * checkout.
 */
const BOOT = `set -e
work=$1/work; mkdir -p $work; mount -t tmpfs tmpfs $work
mkdir $work/root $work/groups
mount --bind / $work/root
# not the buses of other tests: systemd would try to unmount them, also those that hang
while read -r _ _ _ _ path rest; do
  case " $rest" in *" - fuse"*) continue ;; esac
  case $path in / | /proc | /proc/* | /sys | /sys/* | /dev | /dev/* | /run | /run/* | /tmp | /tmp/* | "$1"/*) continue ;; esac
  if [ -e "$work/root$path" ]; then mount --bind "$path" "$work/root$path"; fi
done < /proc/self/mountinfo
mount --rbind /dev $work/root/dev; mount --rbind /sys $work/root/sys
mount --make-rprivate $work/root
mount -t cgroup2 groups $work/groups; mkdir $work/groups/$2; echo $$ > $work/groups/$2/cgroup.procs
cd $work/root
mount -t proc proc proc
mount --bind -o ro proc/sys proc/sys; mount -o remount,bind,ro proc/sys
umount -l sys/fs/cgroup
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs etc/systemd/system -o mode=755
mkdir run/t; mount --bind $1 run/t
mount -t tmpfs tmpfs tmp -o mode=1777
# a checkout may be there
case $3 in /tmp/*) mkdir -p ".$3"; mount --bind "$3" ".$3" ;; esac
cp -r run/t/units/. etc/systemd/system/
mkdir tmp/old run/none
exec unshare --cgroup /bin/bash -ec '
  mount -t cgroup2 cgroup2 sys/fs/cgroup
  pivot_root . tmp/old; cd /; umount -l /tmp/old
  export SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none
  export container=fusetap-test
  exec ${SYSTEMD} --unit=job.target --show-status=0 --log-target=null'
`;

/** Removes the control groups that systemd has left. */
const CLEAN = `mount -t cgroup2 groups $1/work && find "$1/work/$2" -depth -type d -delete`;

const JOB = {
  'sysinit.target':
    '[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nAfter=local-fs.target\nRequires=local-fs.target\n',
  'basic.target':
    '[Unit]\nDefaultDependencies=no\nConflicts=shutdown.target\nRequires=sysinit.target\nAfter=sysinit.target slices.target\n',
  'job.target': '[Unit]\nRequires=job.service user.slice machine.slice\nAfter=job.service\n',
  'job.service': [
    ...['[Service]', 'Type=oneshot', 'RemainAfterExit=yes'],
    'ExecStart=/bin/bash /run/t/job.sh',
    // what remains of the script may go on until the end
    ...['KillMode=process', 'SendSIGKILL=no'],
    ...['StandardOutput=append:/run/t/out', 'StandardError=append:/run/t/out'],
  ].join('\n'),
};

/** Why no systemd can be booted here; null: it can. */
export function whyNoSystemd(): string | null {
  if (process.geteuid?.() !== 0) return 'needs root';
  if (!isInstalled('systemd-run')) return 'systemd is not installed';
  return readFileSync('/proc/filesystems', 'utf8').includes('cgroup2') ? null : 'needs version 2 of control groups';
}

let boots = 0;

export interface Boot {
  /** file name → text, on top of those of fusetap and of a shutdown */
  readonly units?: Readonly<Record<string, string>>;
  /** for bash, as root; `fusetap` is on its PATH, /run/t is `directory`. Powers off at its end */
  readonly script: string;
}

/** The result of a boot. */
export interface Booted extends Outcome {
  /** what the script and its services printed */
  readonly out: string;
}

/**
 * Boots, runs the script, and shuts down.
 * @param directory has the files that stay; empty at first
 */
export async function bootSystemd(directory: string, { units = {}, script }: Boot): Promise<Booted> {
  const all = join(directory, 'units');
  await cp(SHIPPED, all, { recursive: true });
  for (const name of BORROWED) await cp(join(FROM_DISTRIBUTION, name), join(all, name));
  for (const [name, text] of Object.entries({ ...JOB, ...units })) {
    await mkdir(join(all, name, '..'), { recursive: true });
    await writeFile(join(all, name), text);
  }
  const path = '/run/t/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
  for (const unit of ['bus', 'vbd', 'mount']) {
    await mkdir(join(all, `fusetap-${unit}@.service.d`), { recursive: true });
    const text = `[Service]\nEnvironment=PATH=${path}\nStandardError=append:/run/t/out\n`;
    await writeFile(join(all, `fusetap-${unit}@.service.d`, 'path.conf'), text);
  }
  await mkdir(join(directory, 'bin'));
  await writeFile(join(directory, 'bin', 'fusetap'), `#!/bin/sh\nexec ${process.execPath} ${MAIN} "$@"\n`, {
    mode: 0o755,
  });
  const head = `export PATH=${path}\nunset FUSETAP_RUNTIME_DIR\nset -e\ntrap 'systemctl --no-block poweroff 2> /run/t/poweroff' EXIT\n`;
  await writeFile(join(directory, 'job.sh'), head + script);
  await writeFile(join(directory, 'out'), '');
  boots += 1;
  const group = `fusetap-test-${process.pid}-${boots}`;
  // what others unmount must not stay in this namespace
  const namespaces = ['--mount', '--propagation', 'slave', '--pid', '--ipc', '--uts', '--fork', '--kill-child'];
  const boot = ['/bin/bash', '-c', BOOT, 'boot', directory, group, CHECKOUT];
  const clean = ['--mount', '--propagation', 'slave', '/bin/sh', '-c', CLEAN, 'clean', directory, group];
  const readOut = (): Promise<string> => readFile(join(directory, 'out'), 'utf8');
  try {
    const outcome = await execute('unshare', [...namespaces, ...boot], {
      timeoutMs: 300_000,
      env: { container: undefined },
    });
    return { ...outcome, out: await readOut() };
  } catch (error) {
    throw new Error(`it did not end: ${await readOut()}`, { cause: error });
  } finally {
    await execute('unshare', clean);
  }
}
