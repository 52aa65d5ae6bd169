/** The differential test, for as long as one wants. See scripts/differential. */
import { parseArgs } from 'node:util';
import { runTrial } from '../../../test/differential/trial.js';

const HELP = `scripts/differential: our driver qcow2 and qemu-io do the same random operations on copies of an image

  --seconds N   how long (default: 60)
  --seed S      of the first trial (default: from the clock)
  --help        print this help

Prints how many operations were compared. Exits with 1 at the first difference, and prints its seed and the shape of the
image.`;

function wholeNumber(name: string, text: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new Error(`--${name} takes a whole number from ${least} on, not ${text}`);
}

async function run(words: readonly string[]): Promise<number> {
  const text = { type: 'string' } as const;
  const options = { seconds: text, seed: text, help: { type: 'boolean', short: 'h' } } as const;
  let first: number;
  let seconds: number;
  try {
    const { values } = parseArgs({ args: [...words], options });
    if (values.help) {
      console.log(HELP);
      return 0;
    }
    seconds = wholeNumber('seconds', values.seconds ?? '60', 1);
    first = wholeNumber('seed', values.seed ?? `${Date.now() % 2 ** 30}`, 0);
  } catch (error) {
    console.error(`differential: ${(error as Error).message}; see scripts/differential --help`);
    return 2;
  }
  return await compareFor(seconds, first);
}

async function compareFor(seconds: number, first: number): Promise<number> {
  const start = performance.now();
  let operations = 0;
  let seed = first;
  try {
    for (; performance.now() - start < seconds * 1000; seed++) operations += (await runTrial(seed)).operations;
  } catch (error) {
    console.error(`differential: ${(error as Error).message}`);
    return 1;
  } finally {
    const took = ((performance.now() - start) / 1000).toFixed(0);
    console.log(`${operations} operations compared in ${seed - first} trials from seed ${first}, ${took} s`);
  }
  return 0;
}

process.exitCode = await run(process.argv.slice(2));
