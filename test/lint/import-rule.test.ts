/**
 * The import rule (cli → mount → drivers → system) as biome.json states it, proved by a small tree of files that keep
 * or break it. The rule is configuration, so nothing else would notice if an override stopped matching.
 */
import { execFile } from 'node:child_process';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import t from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';

const root = resolve(import.meta.dirname, '../../..');

const forbidden: [file: string, specifier: string][] = [
  ['system/a.ts', '../drivers/driver.js'],
  ['system/b.ts', '../mount/transport/transport.js'],
  ['system/c.ts', '../cli/main.js'],
  ['system/d.ts', 'koffi'],
  ['drivers/ram/a.ts', '../../mount/transport/transport.js'],
  ['drivers/ram/b.ts', '../../mount/fuse/protocol/abi.js'],
  ['drivers/c.ts', '../cli/disk-spec/index.js'],
  ['drivers/filters/d.ts', 'koffi'],
  ['drivers/e.ts', '../test/conformance/suite.js'],
  ['mount/fuse/a.ts', 'koffi'],
  ['mount/keeper/b.ts', '../../cli/output.js'],
  ['mount/c.ts', '../cli/output.js'],
  ['cli/a.ts', '../system/libc.js'],
  ['cli/b.ts', '../drivers/registry.js'],
  ['cli/c.ts', '../drivers/ram/index.js'],
  ['cli/d.ts', '../mount/keeper/keeper.js'],
  ['cli/e.ts', '../mount/fuse/mounting/channel.js'],
  ['cli/f.ts', 'koffi'],
  ['test/a.test.ts', 'koffi'],
  ['scripts/a.ts', 'koffi'],
];

const allowed: [file: string, specifier: string][] = [
  ['system/libc.ts', 'koffi'],
  ['system/ok.ts', './libc.js'],
  ['drivers/ram/ok.ts', '../../system/libc.js'],
  ['drivers/ram/ok2.ts', '../driver.js'],
  ['mount/fuse/ok.ts', '../../system/libc.js'],
  ['mount/keeper/ok2.ts', '../../drivers/registry.js'],
  ['mount/ok3.ts', './control/interface.js'],
  ['cli/ok.ts', '../mount/client/index.js'],
  ['cli/ok2.ts', '../drivers/errors.js'],
  ['cli/ok3.ts', '../mount/control/interface.js'],
  ['cli/ok4.ts', '../mount/slots/slots.js'],
  ['cli/ok5.ts', './mount.js'],
  ['test/ok.test.ts', '../cli/main.js'],
];

/** other ways to import, all of them forbidden */
const disguises: [file: string, text: string][] = [
  ['cli/dynamic.ts', "export const module = import('../system/libc.js');\n"],
  ['cli/reexport.ts', "export { read } from '../system/libc.js';\n"],
  ['cli/only-type.ts', "export type { Vbd } from '../mount/keeper/keeper.js';\n"],
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

t.test('the lint rule for imports', async (t) => {
  const { path: directory, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  await writeTree(directory);
  const reported = await lint(directory);

  for (const [file, specifier] of forbidden) t.ok(reported.has(file), `${file} may not import ${specifier}`);
  for (const [file] of disguises) t.ok(reported.has(file), `${file} is seen through`);
  for (const [file, specifier] of allowed) t.notOk(reported.has(file), `${file} may import ${specifier}`);
});
