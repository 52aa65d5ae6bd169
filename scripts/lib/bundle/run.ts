/**
 * Makes the programs of the package: it joins their modules to few files, which Node loads much faster. The second step
 * of `npm run build`.
 *
 *      cli/main.ts, mount/keeper/main.ts, …  ──tsc──►  dist/…/*.js          one file a module: for unit tests, and types
 *                                            ──────►  dist/ENTRY.cjs,       the programs
 *                                                     dist/chunks/*.cjs     what they share
 *                                                     dist/ENTRY.js         replaces what tsc has written, imports the program
 *
 * All programs are made together, so a module is in one file only, and a class is the same in all code of a process.
 */
import { mkdirSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, posix, relative, resolve } from 'node:path';
import { type Plugin, rolldown } from 'rolldown';
import { moduleInPlaceOf, toCommonJs } from './commonjs.js';
import { ENTRIES } from './entries.js';
import { layersOf } from './layers.js';
import { withoutStubs } from './stubs.js';

const ROOT = resolve(import.meta.dirname, '../../../..');
const TARGET = resolve(ROOT, 'dist');
const CHUNKS = 'chunks';

/** native code, and packages that are large or optional: they stay packages */
const PACKAGES = ['koffi', 'fuse-native', 'undici', 'zstddec', 'fast-check', 'tap'];

/** The name of a module: its path below the root, without extension. */
function nameOf(id: string): string {
  return relative(ROOT, id).replace(/\.[jt]s$/, '');
}

/**
 * In a joined file, `import.meta.url` would be the place of that file. This keeps it the place of the module, beside
 * which other files of the package are found.
 */
const places: Plugin = {
  name: 'places',
  transform(code, id) {
    if (id.startsWith('\0') || !code.includes('import.meta.url')) return null;
    return { code: code.replaceAll('import.meta.url', `PLACE_OF("${nameOf(id)}.js")`), map: null };
  },
  renderChunk(code, { fileName }) {
    if (!code.includes('PLACE_OF(')) return null;
    const replaced = code.replace(/PLACE_OF\("([^"]+)"\)/g, (_, module: string) => {
      if (module === fileName) return 'import.meta.url';
      const path = posix.relative(posix.dirname(fileName), module);
      return `new URL('${path.startsWith('.') ? path : `./${path}`}', import.meta.url).href`;
    });
    return { code: replaced, map: null };
  },
};

/** commander starts programs only for commands that are programs of their own, which we do not have */
const commander: Plugin = {
  name: 'commander',
  transform(code, id) {
    if (!id.endsWith('/commander/lib/command.js')) return null;
    return { code: code.replace("require('node:child_process')", '{}'), map: null };
  },
};

/** Tells the bundler which modules to join. */
function layering(): { readonly plugin: Plugin; layerOf(id: string): string | null } {
  let layers = new Map<string, string>();
  const plugin: Plugin = {
    name: 'layers',
    buildEnd(error) {
      if (error) return;
      const graph = new Map<string, string[]>();
      for (const id of this.getModuleIds()) {
        const info = this.getModuleInfo(id);
        const imported = (info?.importedIds ?? []).filter((each) => this.getModuleInfo(each)?.code != null);
        if (info?.code != null) graph.set(nameOf(id), imported.map(nameOf));
      }
      layers = layersOf(graph);
      // an entry keeps its own code
      for (const entry of ENTRIES) layers.delete(entry);
    },
  };
  return { plugin, layerOf: (id) => layers.get(nameOf(id)) ?? null };
}

/** @returns the text of each file, by its path below dist/ */
async function bundle(): Promise<Map<string, string>> {
  const { plugin, layerOf } = layering();
  const build = await rolldown({
    cwd: ROOT,
    input: Object.fromEntries(ENTRIES.map((entry) => [entry, resolve(ROOT, `${entry}.ts`)])),
    platform: 'node',
    external: [/^node:/, ...PACKAGES],
    resolve: { extensionAlias: { '.js': ['.ts', '.js'] } },
    // that a module is loaded lazily in one place and at once in another is no mistake
    checks: { ineffectiveDynamicImport: false },
    preserveEntrySignatures: 'allow-extension',
    plugins: [places, commander, plugin],
  });
  const { output } = await build.generate({
    format: 'esm',
    // to read over comments takes time, too
    comments: false,
    entryFileNames: '[name].js',
    chunkFileNames: ({ name, facadeModuleId, isDynamicEntry }) =>
      `${CHUNKS}/${isDynamicEntry && facadeModuleId ? nameOf(facadeModuleId) : name}-[hash].js`,
    codeSplitting: { includeDependenciesRecursively: false, groups: [{ name: layerOf, debugName: 'layers' }] },
  });
  await build.close();
  return new Map(output.flatMap((file) => (file.type === 'chunk' ? [[file.fileName, file.code] as const] : [])));
}

function write(files: ReadonlyMap<string, string>): void {
  for (const [name, text] of files) {
    const path = resolve(TARGET, name);
    mkdirSync(dirname(path), { recursive: true });
    // a program that is just being started reads the old file or the new one
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
  }
  for (const name of readdirSync(resolve(TARGET, CHUNKS), { recursive: true, encoding: 'utf8' })) {
    const path = `${CHUNKS}/${name}`;
    if (/\.c?js$/.test(name) && !files.has(path)) rmSync(resolve(TARGET, path));
  }
}

const modules = withoutStubs(await bundle(), CHUNKS);
const entries = [...modules].filter(([path]) => !path.startsWith(`${CHUNKS}/`));
write(
  new Map([...toCommonJs(modules), ...entries.map(([path, text]) => [path, moduleInPlaceOf(path, text)] as const)]),
);
