/** Measures what buses hold, from /proc and the runtime directory. */
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { pssBytes } from '../benching/processes.js';
import type { Holdings } from './figures.js';

/** The processes of a runtime directory's buses, known by their environment. */
export async function busPids(runtimeDir: string, program: 'keeper' | 'server' | '' = ''): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const found = pids.map(async (pid) => {
    const text = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
    const [environment, command] = await Promise.all([text('environ'), text('cmdline')]);
    const isOurs = environment.split('\0').includes(`FUSETAP_RUNTIME_DIR=${runtimeDir}`);
    return isOurs && command.includes(`${program}-main.js`) ? [Number(pid)] : [];
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
  const bytesOf = async (program: 'keeper' | 'server'): Promise<number> =>
    (await pssBytes(await busPids(runtimeDir, program), 'Pss_Anon')) ?? 0;
  return {
    keeperBytes: await bytesOf('keeper'),
    serverBytes: await bytesOf('server'),
    fds: fds.reduce((sum, count) => sum + count, 0),
    mounts: mounts.length,
    files: (await Promise.all(files)).flat().length,
    processes: pids.length,
  };
}
