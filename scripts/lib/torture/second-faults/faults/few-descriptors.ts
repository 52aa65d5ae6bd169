/** The keeper may open nothing more for a second or two, and its server is killed meanwhile. */
import { readdir } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { isInstalled, runCommand } from '../../../bench/command.js';
import type { Fault } from './fault.js';

/** every command asks the keeper, which may have no descriptor to hear it with */
const ALL = ['attach', 'detach', 'ls', 'show', 'stats', 'pause', 'resume', 'save', 'reset', 'upgrade', 'swap'];

export const fewDescriptors: Fault = {
  name: 'descriptors',
  about: 'a keeper may have no more descriptors than it has (prlimit) while its server is killed',
  whyNot: async () => ((await isInstalled('prlimit')) ? null : 'prlimit is not installed'),
  begin: async (bus, random) => {
    // asked before: later the keeper may not hear the question
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

/** The descriptor that the process would be given next. */
async function lowestFree(pid: number | null): Promise<number> {
  const used = new Set(await readdir(`/proc/${pid}/fd`));
  let free = 0;
  while (used.has(`${free}`)) free += 1;
  return free;
}
