/**
 * The unit of systemd in which a bus lives: a scope of its own. Otherwise the bus would belong to the session, service or
 * scope of the command that started it, and end with that.
 *
 *      command in session-3.scope ──► systemd-run --scope ──► fusetap-bus-0.scope: keeper, server
 *
 * systemd-run(1) registers its own process with systemd, and then executes the keeper in its place. So the keeper stays a
 * child of the command, with its descriptors, its mount namespace and its user.
 */
import { execFile } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { userInfo } from 'node:os';
import { controlGroupOf, isKnownToSystemd, isOfUserManager } from '../../system/systemd.js';
import { type BusPlace, runtimeDir as chooseRuntimeDir } from '../runtime/bus-place.js';

/** `no`: the bus stays in the unit of the command that starts it */
const VARIABLE = 'FUSETAP_SCOPE';
const ASK_LIMIT_MS = 5_000;

/** What a bus must outlive when the machine goes down. systemd stops in the reverse order of `Before=`. */
const STOPPED_BEFORE_A_BUS = [
  // sessions and programs of users; virtual machines and containers that are registered
  'user.slice',
  'machine.slice',
  'xendomains.service',
  'xen-qemu-dom0-disk-backend.service',
  'libvirt-guests.service',
  'libvirtd.service',
  'docker.service',
  'containerd.service',
  'crio.service',
  'podman-restart.service',
  'lxc.service',
];

/**
 * What must be there as long as a bus: images may lie on it. Only units that are active already are named: systemd would
 * wait for the start of others. Not local-fs.target or remote-fs.target: what is mounted from the bus is before these.
 */
const STOPPED_AFTER_A_BUS = [
  ...['network.target', 'network-online.target', 'remote-fs-pre.target', 'nfs-client.target', 'rpc-statd.service'],
  ...['iscsid.service', 'open-iscsi.service', 'iscsi.service', 'multipathd.service', 'nvmf-autoconnect.service'],
  ...['nvmefc-boot-connections.service', 'drbd.service', 'glusterd.service', 'ceph.target', 'rbdmap.service'],
];

/**
 * How long systemd waits for a bus that it has told to end: as long as a bus waits for its users, and then for its disks
 * (ending/await-users.ts, ending/limit.ts), and some more.
 */
const STOP_LIMIT_SECONDS = 180;

/** A scope that does not exist yet. */
export interface BusScope {
  readonly manager: 'system' | 'user';
  /** as `fusetap-bus-0.scope` */
  readonly unit: string;
  /** what systemd-run needs to find the manager */
  readonly env: Readonly<Record<string, string>>;
}

/** The scope that a new bus gets; null if it stays in the unit of its caller. */
export async function chooseScope(place: BusPlace): Promise<BusScope | null> {
  if (!isKnownToSystemd() || process.env[VARIABLE] === 'no') return null;
  const unit = `${scopeName(place)}.scope`;
  if (process.geteuid?.() === 0) return { manager: 'system', unit, env: {} };
  const directory = process.env.XDG_RUNTIME_DIR || `/run/user/${process.geteuid?.()}`;
  if (!existsSync(`${directory}/systemd/private`) || !(await livesLongerWithUser())) return null;
  return { manager: 'user', unit, env: { XDG_RUNTIME_DIR: directory } };
}

/** Buses with the same name, in different runtime directories, have different scopes. */
function scopeName({ name, runtimeDir }: BusPlace): string {
  const plain = `fusetap-bus-${name}`;
  if (runtimeDir === usualRuntimeDir()) return plain;
  return `${plain}-${createHash('sha256').update(runtimeDir).digest('hex').slice(0, 8)}`;
}

function usualRuntimeDir(): string | null {
  const { FUSETAP_RUNTIME_DIR: _, ...env } = process.env;
  try {
    return chooseRuntimeDir(env, process.geteuid?.() ?? 0);
  } catch {
    return null;
  }
}

/** The same scope by another name, if there is one of that name: what is left of an earlier bus may still be ending. */
export function anotherScope(scope: BusScope): BusScope {
  return { ...scope, unit: scope.unit.replace(/\.scope$/, `-${randomBytes(4).toString('hex')}.scope`) };
}

/**
 * A user's manager ends with the user's last session, unless the user lingers. A process in a session may outlive the
 * session (KillUserProcesses=no, the default of Debian). So a bus goes to the manager if it does not live shorter there.
 */
async function livesLongerWithUser(): Promise<boolean> {
  const path = controlGroupOf('self');
  if (path === null || isOfUserManager(path)) return true;
  if (isLingering()) return true;
  const answer = await outputOf('busctl', [
    ...['--system', 'get-property', 'org.freedesktop.login1', '/org/freedesktop/login1'],
    ...['org.freedesktop.login1.Manager', 'KillUserProcesses'],
  ]);
  return answer.trim() === 'b true';
}

function isLingering(): boolean {
  try {
    return existsSync(`/var/lib/systemd/linger/${userInfo().username}`);
  } catch {
    // the user has no entry in the list of users
    return false;
  }
}

/** A command that runs another command in a scope. It writes a byte to descriptor 4 as soon as it is in the scope. */
export async function commandInScope(
  { manager, unit }: BusScope,
  bus: string,
  command: readonly string[],
): Promise<string[]> {
  const [version, after] = await Promise.all([versionOfSystemd(), manager === 'system' ? activeOnes() : '']);
  const properties = [
    `TimeoutStopSec=${STOP_LIMIT_SECONDS}`,
    // a server that the kernel kills for lack of memory is replaced: its scope must not be stopped for that
    ...(version >= 253 ? ['OOMPolicy=continue'] : []),
    ...(manager === 'system' ? [`Before=${STOPPED_BEFORE_A_BUS.join(' ')}`] : []),
    ...(after === '' ? [] : [`After=${after}`]),
  ];
  return [
    'systemd-run',
    ...(manager === 'user' ? ['--user'] : []),
    ...['--scope', '--quiet', '--collect', `--unit=${unit}`, `--description=fusetap bus ${bus}`],
    ...properties.map((property) => `--property=${property}`),
    ...['--', '/bin/sh', '-c', ENTER, unit, ...command],
  ];
}

/** Runs in the scope: tells so if it is true, and then executes the command. */
const ENTER = 'case $(cat /proc/self/cgroup) in *"/$0"*) printf . >&4 && exec 4>&- "$@" ;; esac; exit 1';

/** Those of STOPPED_AFTER_A_BUS that are active. */
async function activeOnes(): Promise<string> {
  const args = ['list-units', '--state=active', '--plain', '--no-legend', '--no-pager', '--full', '--'];
  const lines = await outputOf('systemctl', [...args, ...STOPPED_AFTER_A_BUS]);
  const names = lines.split('\n').map((line) => line.split(' ')[0] ?? '');
  return names.filter((name) => STOPPED_AFTER_A_BUS.includes(name)).join(' ');
}

/** 0 if it is not known. */
async function versionOfSystemd(): Promise<number> {
  return Number(/^systemd (\d+)/.exec(await outputOf('systemd-run', ['--version']))?.[1] ?? 0);
}

/** What a program prints, also if it fails. */
function outputOf(program: string, args: readonly string[]): Promise<string> {
  const options = { cwd: '/', timeout: ASK_LIMIT_MS, killSignal: 'SIGKILL' as const };
  return new Promise((resolve) => {
    execFile(program, args, options, (_, stdout) => resolve(stdout));
  });
}
