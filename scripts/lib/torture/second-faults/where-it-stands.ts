/** The position of a process's threads in the kernel: explains why a bus is stuck. */
import { readdir, readFile } from 'node:fs/promises';
import { statFields } from '../../../../system/proc.js';

/** A line for each thread: its state, the kernel function that it waits in, and its system call. */
export async function whereItStands(what: string, pid: number | null | undefined): Promise<string[]> {
  if (pid == null) return [`${what}: no process`];
  const threads = await readdir(`/proc/${pid}/task`).catch(() => [] as string[]);
  return await Promise.all(
    threads.map(async (tid) => `${what} ${pid}/${tid}: ${await describe(`/proc/${pid}/task/${tid}`)}`),
  );
}

async function describe(directory: string): Promise<string> {
  const read = (name: string): Promise<string> => readFile(`${directory}/${name}`, 'utf8').catch(() => '?');
  const [stat, waitsIn, call] = await Promise.all([read('stat'), read('wchan'), read('syscall')]);
  return `${statFields(stat)[0]} ${waitsIn} ${call.split(' ').slice(0, 3).join(' ').trim()}`;
}
