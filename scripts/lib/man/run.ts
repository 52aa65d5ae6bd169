/**
 * Writes the man pages to dist/man.
 *
 *     node dist/scripts/lib/man/run.js              the pages; `npm run build` does this
 *     node dist/scripts/lib/man/run.js --package    also their names to package.json
 */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { VERSION } from '../../../mount/version.js';
import { makePages } from './pages.js';

const ROOT = new URL('../../../../', import.meta.url);
/** below the root of the package */
const TARGET = 'dist/man/';

/** now, or what reproducible builds set */
function buildDate(): Date {
  const { SOURCE_DATE_EPOCH } = process.env;
  return SOURCE_DATE_EPOCH === undefined ? new Date() : new Date(Number(SOURCE_DATE_EPOCH) * 1000);
}

function writePages(pages: ReadonlyMap<string, string>): void {
  // a page of a command that is gone must not stay
  rmSync(new URL(TARGET, ROOT), { recursive: true, force: true });
  for (const [path, text] of pages) {
    const url = new URL(TARGET + path, ROOT);
    mkdirSync(dirname(url.pathname), { recursive: true });
    writeFileSync(url, text);
  }
}

/** npm links the pages that package.json lists one by one, but not those of `directories.man`. */
function listPages(paths: Iterable<string>): void {
  const url = new URL('package.json', ROOT);
  const manifest = JSON.parse(readFileSync(url, 'utf8')) as Record<string, unknown>;
  manifest.man = [...paths].sort().map((path) => TARGET + path);
  writeFileSync(url, `${JSON.stringify(manifest, null, 2)}\n`);
}

const pages = await makePages({ version: VERSION, date: buildDate() });
writePages(pages);
if (process.argv.includes('--package')) listPages(pages.keys());
