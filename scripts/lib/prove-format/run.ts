/** Looks for mistakes of drivers that write formats; see scripts/prove-format --help. */
import { EXIT_CODES, FusetapError } from '../../../drivers/errors.js';
import { PROOFS } from './proofs.js';
import { HELP, parseSettings } from './words.js';

async function main(args: readonly string[]): Promise<number> {
  const settings = parseSettings(args);
  if (settings === null) {
    console.log(HELP);
    return 0;
  }
  const { what, driver, firstSeed } = settings;
  console.log(`prove-format: ${what} of ${driver}, --seed ${firstSeed}`);
  const start = performance.now();
  const { trials, faults } = await PROOFS[what].run(settings, console.log);
  console.log(`${trials} trials, ${faults} faults, ${Math.round((performance.now() - start) / 1000)} s`);
  return faults > 0 ? 1 : 0;
}

try {
  process.exit(await main(process.argv.slice(2)));
} catch (error) {
  if (!(error instanceof FusetapError)) throw error;
  console.error(`prove-format: ${error.message}${error.hint ? `: ${error.hint}` : ''}`);
  process.exit(EXIT_CODES[error.code]);
}
