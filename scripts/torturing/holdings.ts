/** Measures what buses hold, from /proc and the runtime directory. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pssBytes } from '../benching/processes.js';
import type { Holdings } from './figures.js';

/** The keepers and servers of a runtime directory, known by their environment. */
export async function busPids(runtimeDir: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) => {
    const text = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
    const [environment, command] = await Promise.all([text('environ'), text('cmdline')]);
    const isOurs = environment.split('\0').includes(`FUSETAP_RUNTIME_DIR=${runtimeDir}`);
    return isOurs && /(keeper|server)-main\.js/.test(command) ? [Number(pid)] : [];
  });
  return (await Promise.all(found)).flat();
}

export async function measure(runtimeDir: string): Promise<Holdings> {
  const pids = await busPids(runtimeDir);
  const fds = await Promise.all(pids.map(async (pid) => (await readdir(`/proc/${pid}/fd`).catch(() => [])).length));
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .filter((line) => line.includes(runtimeDir));
  const files = ['state', 'ram', 'bus'].map((name) => readdir(join(runtimeDir, name)).catch(() => []));
  return {
    pssBytes: (await pssBytes(pids)) ?? 0,
    fds: fds.reduce((sum, count) => sum + count, 0),
    mounts: mounts.length,
    files: (await Promise.all(files)).flat().length,
    processes: pids.length,
  };
}
