/** A program that runs while the server of its bus is killed again and again. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Outcome } from './command.js';
import type { Bench } from './fixtures.js';

/**
 * Runs the program; kills the server `kills` times meanwhile, each time another one.
 * @returns how the program ended, and how many servers died of it
 */
export async function killServerDuring(
  bench: Bench,
  kills: number,
  program: Promise<Outcome>,
): Promise<Outcome & { killed: number }> {
  let isOver = false;
  const outcome = program.finally(() => {
    isOver = true;
  });
  const pids = new Set<number>();
  while (!isOver && pids.size < kills) {
    await delay(150);
    const pid = (await bench.list())[0]?.serverPid;
    if (pid === null || pid === undefined || pids.has(pid) || isOver) continue;
    process.kill(pid, 'SIGKILL');
    pids.add(pid);
  }
  return { ...(await outcome), killed: pids.size };
}

/** fio, writing and verifying all of a file through the page cache's back, for as long as some kills take. */
export function verifyJob(vbd: string, sizeBytes: number, ...more: string[]): string[] {
  const job = ['--name=verify', `--filename=${vbd}`, `--size=${sizeBytes}`, '--rw=randwrite', '--bs=16k'];
  const verify = ['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--output-format=terse'];
  return [...job, ...verify, '--ioengine=libaio', '--iodepth=16', '--direct=1', ...more];
}
