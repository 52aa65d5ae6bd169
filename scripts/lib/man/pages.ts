/**
 * All man pages of the package, made from the programs and the documentation.
 *
 *      cli/program.ts, docs/cli.md            ──► fusetap(1), fusetap-COMMAND(1)
 *      cli/tap-ctl/, docs/from-tapdisk.md     ──► tap-ctl(8)
 *      docs/drivers.md, READMEs of drivers      ──► fusetap.drivers(7)
 */
import { readFileSync } from 'node:fs';
import { addCommands, COMMANDS, makeProgram } from '../../../cli/program.js';
import { driversPage } from './drivers-page.js';
import { aliasesOf, fusetapPages } from './fusetap-pages.js';
import { type Edition, write } from './roff.js';
import { tapCtlPage } from './tap-ctl-page.js';

const ROOT = new URL('../../../../', import.meta.url);

/** The text of every page, by its path below the directory of the pages: `man1/fusetap-attach.1`. */
export async function makePages(edition: Edition): Promise<Map<string, string>> {
  const read = (path: string): string => readFileSync(new URL(path, ROOT), 'utf8');
  const program = makeProgram();
  await addCommands(program, Object.keys(COMMANDS));
  const pages = [
    ...fusetapPages(program, read('docs/cli.md')),
    await tapCtlPage(read('docs/from-tapdisk.md')),
    driversPage(read),
  ];
  const files = new Map(pages.map((page) => [`man${page.section}/${page.name}.${page.section}`, write(page, edition)]));
  for (const [alias, page] of aliasesOf(program)) files.set(`man1/${alias}.1`, `.so man1/${page}.1\n`);
  return files;
}
