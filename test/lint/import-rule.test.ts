/**
 * Only system/libc.ts and system/librbd.ts call foreign functions: biome.json states it, and a small tree of files that keep
 * or break it proves it. The rule is configuration, so nothing else would notice if an override stopped matching. Which room of the tree may
 * import which is in rooms.ts.
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import t from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';

const root = resolve(import.meta.dirname, '../../..');

const forbidden: [file: string, specifier: string][] = [
  ['system/d.ts', 'koffi'],
  ['drivers/filters/d.ts', 'koffi'],
  ['mount/fuse/a.ts', 'koffi'],
  ['cli/f.ts', 'koffi'],
  ['test/a.test.ts', 'koffi'],
  ['scripts/a.ts', 'koffi/index.js'],
];

const allowed: [file: string, specifier: string][] = [
  ['system/libc.ts', 'koffi'],
  ['system/librbd.ts', 'koffi'],
  ['system/ok.ts', './libc.js'],
];

/** other ways to import, all of them forbidden */
const disguises: [file: string, text: string][] = [
  ['cli/dynamic.ts', "export const module = import('koffi');\n"],
  ['cli/reexport.ts', "export { load } from 'koffi';\n"],
  ['cli/only-type.ts', "export type { LibraryHandle } from 'koffi';\n"],
];

async function writeTree(directory: string): Promise<void> {
  const plain = [...forbidden, ...allowed].map(
    ([file, specifier]) => [file, `import { x } from '${specifier}';\n\nexport const y = x;\n`] as const,
  );
  for (const [file, text] of [...plain, ...disguises]) {
    await mkdir(dirname(join(directory, file)), { recursive: true });
    await writeFile(join(directory, file), text);
  }
  await copyFile(join(root, 'biome.json'), join(directory, 'biome.json'));
}

interface Report {
  diagnostics: { category: string; location: { path: string } }[];
}

/** The files that biome finds to break the rule. */
function lint(directory: string): Promise<Set<string>> {
  const biome = join(root, 'node_modules/.bin/biome');
  const words = ['lint', '--only=style/noRestrictedImports', '--max-diagnostics=none', '--reporter=json', '.'];
  return new Promise((resolve, reject) => {
    execFile(biome, words, { cwd: directory }, (_, stdout, stderr) => {
      if (!stdout.startsWith('{')) return reject(new Error(`biome said no JSON: ${stdout}${stderr}`));
      const { diagnostics } = JSON.parse(stdout) as Report;
      resolve(new Set(diagnostics.map(({ location }) => location.path)));
    });
  });
}

t.test('the lint rule for koffi', async (t) => {
  const { path: directory, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  await writeTree(directory);
  const reported = await lint(directory);

  for (const [file, specifier] of forbidden) t.ok(reported.has(file), `${file} may not import ${specifier}`);
  for (const [file] of disguises) t.ok(reported.has(file), `${file} is seen through`);
  for (const [file, specifier] of allowed) t.notOk(reported.has(file), `${file} may import ${specifier}`);
});
