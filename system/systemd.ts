/**
 * What systemd has to do with a process: whether it runs here, in which of its units a process is, and whether that unit is
 * being stopped. See systemd.unit(5) and cgroups(7).
 */
import { existsSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { builtin } from './builtin.js';

/** how long systemd may take to answer a question, also on a machine that is busy with its shutdown */
const ANSWER_LIMIT_MS = 20_000;
/** how often to ask again, and when, if the program that asks is itself told to end */
const MOST_ASKED = 5;
const ASK_AGAIN_MS = 100;
/** how long the manager of a user has at its end: TimeoutStopSec of user@.service */
const USER_MANAGER_STOP_MS = 120_000;

/** Whether systemd is the init system here: the test of sd_booted(3). */
export const runsSystemd = (): boolean => existsSync('/run/systemd/system');

/**
 * Whether systemd knows this process by the pid that it has here: not in a pid namespace of its own, into which /run or
 * /proc of the machine was passed. There the same number is another process.
 */
export function isKnownToSystemd(): boolean {
  try {
    const isOwnProc = readlinkSync('/proc/self') === String(process.pid);
    return runsSystemd() && isOwnProc && readFileSync('/proc/1/comm', 'utf8').trim() === 'systemd';
  } catch {
    return false;
  }
}

/** The path of a process in the tree of systemd's control groups, as `/system.slice/cron.service`; null if it cannot be read. */
export function controlGroupOf(pid: number | 'self'): string | null {
  try {
    return parseControlGroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
  } catch {
    return null;
  }
}

/** @param text as of /proc/PID/cgroup. With version 1 of control groups, systemd has a hierarchy of its own. */
export function parseControlGroup(text: string): string | null {
  const lines = text.split('\n').map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const pathOf = (hierarchy: string): string | undefined => lines.find((line) => line?.[1] === hierarchy)?.[2];
  const own = pathOf('name=systemd');
  // a systemd in a container may use version 2 only, while the machine has both
  return (own === '/' ? undefined : own) ?? pathOf('') ?? own ?? null;
}

/** The unit that the path of a control group names, as `cron.service`; null if it is in none, as the kernel's threads. */
export function unitInPath(path: string): string | null {
  return path.split('/').findLast((name) => /\.(service|scope)$/.test(name)) ?? null;
}

/** The unit of a process; null where systemd does not run, or if the process is in none. */
export function unitOf(pid: number | 'self'): string | null {
  const path = runsSystemd() ? controlGroupOf(pid) : null;
  return path === null ? null : unitInPath(path);
}

/** Whether a control group belongs to the manager of a user, not to the one of the system. */
export const isOfUserManager = (path: string): boolean => /\/user@\d+\.service\//.test(path);

/** A unit that is being stopped. */
export interface UnitStop {
  /** how long its processes have, from the signal that tells them to end, until they are killed; Infinity: for ever */
  readonly limitMs: number;
}

/** The stop of the unit of this process: by `systemctl stop`, at a shutdown, or at the end of a session; null if it goes on. */
export async function findOwnStop(): Promise<UnitStop | null> {
  const path = runsSystemd() ? controlGroupOf('self') : null;
  const unit = path === null ? null : unitInPath(path);
  if (path === null || unit === null) return null;
  const isUsers = isOfUserManager(path);
  const answer = await askPatiently([...(isUsers ? ['--user'] : []), 'show', ...STOP_PROPERTIES, '--', unit]);
  if (answer === null || !/^ActiveState=deactivating$/m.test(answer)) return null;
  const own = parseTimeSpan(/^TimeoutStopUSec=(.*)$/m.exec(answer)?.[1] ?? '');
  return { limitMs: isUsers ? Math.min(own, USER_MANAGER_STOP_MS) : own };
}
const STOP_PROPERTIES = ['--property=ActiveState', '--property=TimeoutStopUSec'];

/** A time span as systemctl prints it, as `1min 30s` or `infinity`, in ms; 0 if it cannot be read. See systemd.time(7). */
export function parseTimeSpan(text: string): number {
  if (text === 'infinity') return Number.POSITIVE_INFINITY;
  const parts = text.split(' ').map((part) => /^(\d+(?:\.\d+)?)(us|ms|s|min|h|d|w)$/.exec(part));
  return parts.reduce((sum, part) => sum + Number(part?.[1] ?? 0) * (UNIT_MS[part?.[2] ?? ''] ?? 0), 0);
}
const UNIT_MS: Readonly<Record<string, number>> = {
  ...{ us: 0.001, ms: 1, s: 1000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 },
};

/** systemd sends SIGTERM to each process that it finds in the unit, also to a program that has just begun to ask. */
async function askPatiently(args: readonly string[]): Promise<string | null> {
  for (let asked = 1; ; asked++) {
    const { text, isInterrupted } = await ask(args);
    if (!isInterrupted || asked === MOST_ASKED) return text;
    await delay(ASK_AGAIN_MS);
  }
}

function ask(args: readonly string[]): Promise<{ text: string | null; isInterrupted: boolean }> {
  const options = { cwd: '/', timeout: ANSWER_LIMIT_MS, killSignal: 'SIGKILL' as const };
  return new Promise((resolve) => {
    builtin.childProcess.execFile('systemctl', args, options, (error, stdout) => {
      resolve({ text: error === null ? stdout : null, isInterrupted: error?.signal === 'SIGTERM' });
    });
  });
}
