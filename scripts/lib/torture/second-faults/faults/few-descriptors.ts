/** The keeper cannot open any descriptor for one to two seconds, and its server is killed meanwhile. */
import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { isInstalled, runCommand } from '../../../bench/command.js';
import type { Fault } from './fault.js';

/** every command connects to the keeper, which may have no descriptor for the connection */
const ALL = ['attach', 'detach', 'ls', 'show', 'stats', 'pause', 'resume', 'save', 'reset', 'upgrade', 'swap'];

export const fewDescriptors: Fault = {
  name: 'descriptors',
  about: 'a keeper cannot open more descriptors (prlimit) while its server is killed',
  whyNot: async () => ((await isInstalled('prlimit')) ? null : 'prlimit is not installed'),
  begin: async (bus, random) => {
    // ask now: later the keeper may be unable to accept the connection
    const info = await bus.info();
    const words = ['--pid', `${info.keeperPid}`];
    const before = (await runCommand('prlimit', [...words, '--nofile', '--noheadings', '-o', 'SOFT'])).trim();
    const limit = (soft: string): Promise<string> => runCommand('prlimit', [...words, `--nofile=${soft}:`]);
    await limit(`${await lowestFree(info.keeperPid)}`);
    let restarts = 0;
    return {
      standing: bus.journal.begin('descriptors', `keeper of ${bus.name}`, { commands: { kinds: ALL, bus: bus.name } }),
      during: async () => {
        restarts = await bus.killServer(info);
        await delay(random.between(1_000, 2_000));
      },
      undo: () => limit(before).then(() => {}),
      after: () => bus.settled(restarts),
    };
  },
};

/** The number of the next descriptor of the process. */
async function lowestFree(pid: number | null): Promise<number> {
  const used = new Set(await readdir(`/proc/${pid}/fd`));
  let free = 0;
  while (used.has(`${free}`)) free += 1;
  return free;
}
