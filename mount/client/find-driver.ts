/**
 * Finds the driver that a word means: a built-in driver by name, a file by its path, or an npm package by its name. The
 * client resolves the word, because the bus does not know the client's directory: it gets an absolute path.
 *
 * A package is found as by `import`: in node_modules of the client's directory and its parents, then next to fusetap
 * itself, so that `npm install -g fusetap fusetap-mine` is enough.
 */
import { readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FusetapError } from '../../drivers/errors.js';
import { driverNames } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';

const OWN_DIRECTORY = fileURLToPath(new URL('.', import.meta.url));
const PACKAGE_NAME = /^(?:@[a-z0-9~-][a-z0-9._~-]*\/)?[a-z0-9~-][a-z0-9._~-]*$/;
/** the conditions of "exports" that apply to an import */
const CONDITIONS = ['node', 'import', 'module-sync', 'default'];

/**
 * Finds the driver for the control interface: the name of a built-in driver, or an absolute path. The server checks
 * whether that file contains a driver.
 * @param cwd called only for a word that needs it, because the working directory may be deleted
 * @throws FusetapError NOT_FOUND; UNSUPPORTED for a package that cannot be imported
 */
export function findDriver(word: string, cwd: () => string): string {
  if (driverNames.includes(word)) return word;
  if (word.startsWith('/')) return resolve(word);
  if (/^\.{1,2}\/|\.[cm]?js$/.test(word)) return resolve(cwd(), word);
  for (const start of PACKAGE_NAME.test(word) ? [cwd(), OWN_DIRECTORY] : []) {
    for (const directory of nodeModulesAbove(start)) {
      const entry = entryOf(join(directory, word), word);
      if (entry !== null) return entry;
    }
  }
  throw new FusetapError('NOT_FOUND', `no driver ${quoted(word)}: no package of that name is installed here`, {
    hint: `drivers are ${driverNames.join(', ')}; name a file with its path, for example ./mine.js`,
  });
}

function nodeModulesAbove(start: string): string[] {
  const above = dirname(start);
  return [join(start, 'node_modules'), ...(above === start ? [] : nodeModulesAbove(above))];
}

interface PackageFile {
  readonly exports?: unknown;
  readonly main?: unknown;
}

function entryOf(directory: string, name: string): string | null {
  const path = join(directory, 'package.json');
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch {
    return null;
  }
  const target = targetOf(text);
  if (target !== null) return join(directory, target);
  const hint = 'its package.json must name its entry in "exports" or "main"';
  throw new FusetapError('UNSUPPORTED', `the package ${quoted(name)} cannot be imported: ${path}`, { path, hint });
}

function targetOf(text: string): string | null {
  try {
    const { exports, main = 'index.js' } = JSON.parse(text) as PackageFile;
    if (exports === undefined || exports === null) return typeof main === 'string' ? main : null;
    const isMap = typeof exports === 'object' && Object.keys(exports).some((key) => key.startsWith('.'));
    return chooseTarget(isMap ? (exports as Record<string, unknown>)['.'] : exports);
  } catch {
    return null;
  }
}

/** The target of the first condition that applies, in the order of the package. */
function chooseTarget(target: unknown): string | null {
  if (typeof target === 'string') return target;
  if (typeof target !== 'object' || target === null) return null;
  for (const [condition, nested] of Object.entries(target)) {
    const chosen = CONDITIONS.includes(condition) ? chooseTarget(nested) : null;
    if (chosen !== null) return chosen;
  }
  return null;
}
