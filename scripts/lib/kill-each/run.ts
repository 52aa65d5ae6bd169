/** Kills the server of a real bus at each system call of a situation; see scripts/kill-each --help. */
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { EXIT_CODES, FusetapError } from '../../../drivers/errors.js';
import { isInstalled } from '../bench/command.js';
import { Undo } from '../bench/undo.js';
import { Random } from '../torture/second-faults/random.js';
import { makeImages } from './images.js';
import { Stage } from './stage.js';
import { killOnce } from './trial.js';
import { parseSettings, type Settings } from './words.js';

async function main(args: readonly string[]): Promise<number> {
  const settings = parseSettings(args);
  if (typeof settings === 'string') {
    console.log(settings);
    return 0;
  }
  if (process.geteuid?.() !== 0)
    throw new FusetapError('DENIED', 'it traces other processes', { hint: 'run it as root' });
  if (!(await isInstalled('strace'))) {
    throw new FusetapError('NOT_FOUND', 'strace is not installed', { hint: 'apt-get install strace' });
  }
  const undo = new Undo();
  const leave = (): void => void undo.run().finally(() => process.exit(130));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, leave);
  try {
    return await killAll(settings, await Stage.set(undo));
  } finally {
    for (const error of await undo.run()) console.error(`kill-each: not taken away: ${error.message}`);
  }
}

async function killAll(settings: Settings, stage: Stage): Promise<number> {
  const { driver, situations, only, seconds } = settings;
  const directory = join(stage.directory, 'images');
  await mkdir(directory);
  const images = await makeImages(driver, only, directory);
  const pairs = images.flatMap((image) => situations.map((situation) => ({ image, situation })));
  if (seconds !== null) shuffle(pairs);
  const deadline = performance.now() + (seconds ?? Number.POSITIVE_INFINITY) * 1000;
  let [kills, faults] = [0, 0];
  for (const { image, situation } of pairs) {
    if (performance.now() > deadline) break;
    const counts: string[] = [];
    for (const call of settings.calls) {
      let at = 1;
      for (; at <= settings.most && performance.now() <= deadline; at++) {
        const isKilled = await killOnce(stage, image, situation, { call, at }).catch((error: Error) => {
          faults++;
          console.log(`FAULT: ${image.subject.name}: ${situation.name}: killed at ${call} ${at}: ${error.message}`);
          return true;
        });
        if (!isKilled) break;
      }
      kills += at - 1;
      if (at > 1) counts.push(`${call} ${at - 1}`);
    }
    console.log(`${image.subject.name}: ${situation.name}: ${counts.join(', ') || 'no kills'}`);
  }
  console.log(`${kills} kills, ${faults} faults`);
  return faults > 0 ? 1 : 0;
}

function shuffle<Item>(items: Item[]): void {
  const random = new Random(Date.now() % 2 ** 31);
  for (let at = items.length - 1; at > 0; at--) {
    const other = random.below(at + 1);
    [items[at], items[other]] = [items[other] as Item, items[at] as Item];
  }
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof FusetapError)) throw error;
  console.error(`kill-each: ${error.message}${error.hint ? `: ${error.hint}` : ''}`);
  process.exit(EXIT_CODES[error.code]);
}
