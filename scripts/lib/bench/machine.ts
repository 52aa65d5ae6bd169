/** The machine on which a record was made: figures mean nothing without it. */
import { availableParallelism, cpus, release, totalmem } from 'node:os';
import { runCommand } from './command.js';

const PROGRAMS = ['fio', 'qemu-storage-daemon', 'nbdkit', 'nbdfuse'] as const;

/** The machine and the versions of the measured programs, as text by name. */
export async function describeMachine(): Promise<Record<string, string>> {
  const machine: Record<string, string> = {
    cpu: cpus()[0]?.model ?? 'unknown',
    cores: String(availableParallelism()),
    memory: `${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
    kernel: release(),
    node: process.version,
  };
  for (const program of PROGRAMS) {
    const said = await runCommand(program, ['--version']).catch(() => '');
    if (said !== '') machine[program] = said.split('\n')[0]?.trim() ?? '';
  }
  return machine;
}
