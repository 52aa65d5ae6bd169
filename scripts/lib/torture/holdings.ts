/** Measures the resources that buses use, from /proc and the runtime directory. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pssBytes } from '../bench/processes.js';
import type { Holdings } from './figures.js';

interface BusProcess {
  readonly pid: number;
  readonly program: 'keeper' | 'server';
}

/** The keepers and servers of a runtime directory, found by their environment. */
export async function busProcesses(runtimeDir: string): Promise<BusProcess[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) => {
    const text = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
    const program = /mount\/(keeper|server)\/main\.js/.exec(await text('cmdline'))?.[1] as
      | BusProcess['program']
      | undefined;
    if (program === undefined) return [];
    // only theirs is read: a read of the environment of a process that is stuck in execve never returns
    const isOurs = (await text('environ')).split('\0').includes(`FUSETAP_RUNTIME_DIR=${runtimeDir}`);
    return isOurs ? [{ pid: Number(pid), program }] : [];
  });
  return (await Promise.all(found)).flat();
}

export async function measure(runtimeDir: string): Promise<Holdings> {
  const processes = await busProcesses(runtimeDir);
  const pidsOf = (program: BusProcess['program']): number[] =>
    processes.flatMap((each) => (each.program === program ? [each.pid] : []));
  const fds = await Promise.all(
    processes.map(async ({ pid }) => (await readdir(`/proc/${pid}/fd`).catch(() => [])).length),
  );
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .filter((line) => line.includes(runtimeDir));
  const files = ['state', 'ram', 'bus'].map((name) => readdir(join(runtimeDir, name)).catch(() => []));
  return {
    keeperBytes: (await pssBytes(pidsOf('keeper'), 'Pss_Anon')) ?? 0,
    serverBytes: (await pssBytes(pidsOf('server'), 'Pss_Anon')) ?? 0,
    fds: fds.reduce((sum, count) => sum + count, 0),
    mounts: mounts.length,
    files: (await Promise.all(files)).flat().length,
    processes: processes.length,
  };
}
