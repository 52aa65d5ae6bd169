/**
 * Finds and removes what a test file left behind on the machine.
 *
 * Each file gets a directory and a mark in its environment. Its processes are found by the mark (or by the directory in
 * their arguments), its mounts and loop devices by their path below the directory. So mounts, devices and processes of
 * other programs, other test runs or the user are never mistaken for leftovers, and never touched.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** the environment variable that marks the processes of a test file */
export const MARK = 'FUSETAP_TEST_FILE';

export interface Territory {
  /** the value of MARK, different for each file and run */
  mark: string;
  /** absolute path */
  directory: string;
}

/** how long a killed process or a detached device may take to disappear */
const REMOVAL_PATIENCE_MS = 2_000;

interface Process {
  pid: number;
  command: string;
}

interface Mount {
  /** minor number of the device, which is also the number of a FUSE connection */
  minor: string;
  path: string;
  type: string;
}

interface Loop {
  device: string;
  image: string;
}

export interface Leftovers {
  processes: Process[];
  mounts: Mount[];
  loops: Loop[];
}

/** Checks until nothing is left, for at most `patienceMs`: processes may take a moment to end. */
export async function findLeftovers(territory: Territory, patienceMs: number): Promise<Leftovers> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const left = await look(territory);
    if (describeLeftovers(left).length === 0 || performance.now() > deadline) return left;
    await delay(100);
  }
}

async function look(territory: Territory): Promise<Leftovers> {
  const below = (path: string): boolean => path.startsWith(`${territory.directory}/`);
  const mounts = (await listMounts()).filter((mount) => below(mount.path));
  const loops = (await listLoops()).filter((loop) => below(loop.image));
  return { mounts, loops, processes: await listProcesses(territory) };
}

/** One line for each. */
export function describeLeftovers(left: Leftovers): string[] {
  return [
    ...left.processes.map(({ pid, command }) => `process ${pid}: ${command}`),
    ...left.loops.map(({ device, image }) => `loop device ${device} over ${image}`),
    ...left.mounts.map(({ type, path }) => `mount of type ${type} at ${path}`),
  ];
}

/**
 * Removes leftovers: first aborts buses, which frees every process that waits for one; then ends processes, and removes
 * loop devices and mounts, the innermost first. Leftovers that cannot be removed stay.
 */
export async function removeLeftovers(territory: Territory, left: Leftovers): Promise<void> {
  if (describeLeftovers(left).length === 0) return;
  await abortBuses(left.mounts);
  for (const { pid } of left.processes) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // it has ended meanwhile
    }
  }
  const tools = { timeout: 5_000, killSignal: 'SIGKILL' } as const;
  for (const { path } of left.mounts.toReversed()) await run('umount', ['-l', path], tools).catch(() => {});
  for (const { device } of left.loops) await run('losetup', ['-d', device], tools).catch(() => {});
  await findLeftovers(territory, REMOVAL_PATIENCE_MS);
}

/** Removes everything, also what processes made while they were ended. */
export async function clearTerritory(territory: Territory): Promise<void> {
  for (let rounds = 0; rounds < 5; rounds++) {
    const left = await look(territory);
    if (describeLeftovers(left).length === 0) return;
    await removeLeftovers(territory, left);
  }
}

/** Aborts the FUSE connections of the territory: processes that wait for an answer get ECONNABORTED. */
export async function abortTerritory(territory: Territory): Promise<void> {
  await abortBuses((await look(territory)).mounts);
}

async function abortBuses(mounts: Mount[]): Promise<void> {
  for (const { minor, type } of mounts) {
    if (type.startsWith('fuse')) await writeFile(`/sys/fs/fuse/connections/${minor}/abort`, '1').catch(() => {});
  }
}

async function listMounts(): Promise<Mount[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).trimEnd().split('\n');
  // proc(5): id parent major:minor root path options … - type source options
  return lines.map((line) => {
    const [before = '', after = ''] = line.split(' - ');
    const fields = before.split(' ');
    return {
      minor: fields[2]?.split(':')[1] ?? '',
      path: unescapeOctal(fields[4] ?? ''),
      type: after.split(' ')[0] ?? '',
    };
  });
}

const unescapeOctal = (text: string): string =>
  text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));

async function listLoops(): Promise<Loop[]> {
  const names = (await readdir('/sys/block').catch(() => [])).filter((name) => name.startsWith('loop'));
  const loops = names.map(async (name) => {
    const image = await readFile(`/sys/block/${name}/loop/backing_file`, 'utf8').catch(() => '');
    return { device: `/dev/${name}`, image: image.trimEnd() };
  });
  return Promise.all(loops);
}

async function listProcesses({ mark, directory }: Territory): Promise<Process[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  const processes = pids.map(async (pid) => {
    const [environment, command] = await Promise.all([text(`/proc/${pid}/environ`), text(`/proc/${pid}/cmdline`)]);
    const ours = environment.split('\0').includes(`${MARK}=${mark}`) || command.includes(`${directory}/`);
    return ours ? [{ pid: Number(pid), command: command.replaceAll('\0', ' ').trimEnd() }] : [];
  });
  return (await Promise.all(processes)).flat();
}

/** empty if the process is gone, may not be read, or is a zombie */
const text = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
