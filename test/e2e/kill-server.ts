/**
 * Servers that are killed, once or again and again while a program runs. What is asked of the bus is asked over its
 * control socket, from here, where root may come whoever the bus is of.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { resolveBus, showBus } from '../../mount/client/index.js';
import type { BusInfo } from '../../mount/control/interface.js';
import { eventually, type Outcome } from './command.js';
import type { Bench } from './fixtures.js';

/** What a bus of a bench says of itself: the first one, or the one by that name or absolute path. */
export async function busInfo(bench: Bench, bus = '0'): Promise<BusInfo> {
  return showBus(await resolveBus(bus, bench.runtimeDir), { timeoutMs: 10_000 });
}

/** Kills a process, which may be dead already. */
export function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

/** Kills the server and waits for nothing: who comes now has to. @returns its pid */
export async function killServer(bench: Bench, bus = '0'): Promise<number> {
  const { serverPid } = await busInfo(bench, bus);
  if (serverPid === null) throw new Error('the bus has no server');
  kill(serverPid);
  return serverPid;
}

/** Kills the server, and waits for the next. */
export async function replaceServer(bench: Bench, { bus = '0', limitMs = 20_000 } = {}): Promise<void> {
  const { restarts } = await busInfo(bench, bus);
  await killServer(bench, bus);
  await eventually('another server', limitMs, async () => {
    const now = await busInfo(bench, bus);
    return now.state === 'running' && now.restarts > restarts;
  });
}

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
    const { serverPid: pid, state } = await busInfo(bench);
    // a server that dies before it is in place is not counted as replaced
    if (pid === null || state !== 'running' || pids.has(pid) || isOver) continue;
    kill(pid);
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
