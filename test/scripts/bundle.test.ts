/** The programs as they are built: few files, one copy of each module, and no native code where it is not needed. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import t from 'tap';
import { moduleInPlaceOf, toCommonJs } from '../../scripts/lib/bundle/commonjs.js';
import { ENTRIES } from '../../scripts/lib/bundle/entries.js';
import { layersOf } from '../../scripts/lib/bundle/layers.js';
import { withoutStubs } from '../../scripts/lib/bundle/stubs.js';

const DIST = resolve(import.meta.dirname, '../..');
const ROOT = resolve(DIST, '..');
/** what is loaded at once: at the beginning of a line */
const REQUIRE = /^(?:const [^;]*? = )?require\("([^"]+)"\);$/gm;

/** a file named by its place: relative to a module, which is named by its place relative to the built file */
const PLACE = /new URL\("([^"]+)", new URL\("([^"]+)", require\("node:url"\)/g;

interface Loaded {
  readonly files: readonly string[];
  readonly packages: readonly string[];
}

/** What Node loads with a file, without what is loaded later. */
function loadedWith(entry: string): Loaded {
  const files = new Set([join(DIST, `${entry}.cjs`)]);
  const packages = new Set<string>();
  for (const file of files) {
    for (const [, name = ''] of readFileSync(file, 'utf8').matchAll(REQUIRE)) {
      if (name.startsWith('.')) files.add(resolve(dirname(file), name));
      else if (!name.startsWith('node:')) packages.add(name);
    }
  }
  return { files: [...files], packages: [...packages] };
}

/** All files of programs. */
function builtFiles(): string[] {
  const chunks = join(DIST, 'chunks');
  const names = readdirSync(chunks, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.cjs'));
  return [...names.map((name) => join(chunks, name)), ...ENTRIES.map((entry) => join(DIST, `${entry}.cjs`))];
}

t.test('a program loads few files', (t) => {
  for (const [entry, most] of Object.entries({
    'cli/main': 6,
    'mount/index': 5,
    'mount/keeper/main': 8,
    'mount/server/main': 5,
    'mount/fuse/thread/thread': 4,
  })) {
    const { files } = loadedWith(entry);
    t.ok(files.length <= most, `${entry}: ${files.length} files`);
    t.ok(files.every((file) => existsSync(file)));
  }
  t.end();
});

t.test('commands and the library load no native code and no schemas', (t) => {
  for (const entry of ['cli/main', 'cli/tap-ctl/main', 'mount/index']) t.same(loadedWith(entry).packages, [], entry);
  t.same(loadedWith('mount/fuse/thread/thread').packages, ['koffi']);
  t.end();
});

t.test('the package has every file that a program starts or reads by its place', (t) => {
  const { files } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { files: string[] };
  const places = builtFiles().flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(PLACE)].map(([, name = '', from = '']) => {
      return relative(ROOT, resolve(dirname(file), dirname(from), name));
    }),
  );
  t.ok(places.length >= 8, `${places.length} places`);
  for (const place of new Set(places)) {
    const isIn = files.some((packed) => place === packed || place.startsWith(`${packed}/`));
    // npm adds package.json; a directory is only compared with
    t.ok(isIn || place === 'package.json' || !place.includes('.'), place);
  }
  t.end();
});

t.test('no module is in two files', (t) => {
  const places = builtFiles().filter((path) => /class FusetapError extends Error/.test(readFileSync(path, 'utf8')));
  t.equal(places.length, 1, 'the class of errors');
  t.end();
});

t.test('the package has every entry', (t) => {
  const { files } = JSON.parse(readFileSync(resolve(DIST, '../package.json'), 'utf8')) as { files: string[] };
  for (const entry of ENTRIES) {
    t.ok(files.includes(`dist/${entry}.cjs`), entry);
    t.ok(files.includes(`dist/${entry}.js`), `${entry}, for those who know it by its older name`);
  }
  t.end();
});

t.test('a layer gets what all its start points need, unless an earlier one has it', (t) => {
  const graph = new Map([
    ['thread', ['errors']],
    ['main', ['errors', 'words']],
    ['ls', ['words', 'table']],
    ['errors', []],
    ['words', []],
    ['table', []],
  ]);
  const layers = {
    base: { sharedBy: [['thread'], ['main']] },
    cli: { sharedBy: [['main', 'ls']] },
  };
  t.strictSame(Object.fromEntries(layersOf(graph, layers)), {
    errors: 'base',
    main: 'cli',
    words: 'cli',
    ls: 'cli',
    table: 'cli',
  });
  t.throws(() => layersOf(graph, { base: { sharedBy: [['gone']] } }), RangeError);
  t.end();
});

t.test('a file that only names another is not loaded', (t) => {
  const files = new Map([
    ['cli/main.js', 'const ls = () => import("../chunks/cli/ls-1.js");'],
    ['chunks/cli/ls-1.js', 'export { a as register, title } from "../all-2.js";\n'],
    ['chunks/all-2.js', 'export { a, title };'],
    ['chunks/own-3.js', 'run();\nexport { run };\n'],
  ]);
  t.strictSame(Object.fromEntries(withoutStubs(files, 'chunks')), {
    'cli/main.js': 'const ls = () => import("../chunks/all-2.js").then((m) => ({ register: m.a, title: m.title }));',
    'chunks/all-2.js': 'export { a, title };',
    'chunks/own-3.js': 'run();\nexport { run };\n',
  });
  t.end();
});

t.test('files become CommonJS', (t) => {
  const files = new Map([
    [
      'a.js',
      '#!/usr/bin/env node\nimport "./b.js";\nimport zlib, { gunzip as g } from "node:zlib";\ng(import.meta.url);\nexport {};\n',
    ],
    [
      'b.js',
      'import { c, d as e } from "./sub/c.js";\nconst load = () => import("./sub/d.js");\nexport { load as f, e };\n',
    ],
    ['sub/c.js', 'const c = 1;\nconst d = () => import("node:http");\nexport { c, d };\n'],
    ['sub/d.js', 'import { c } from "./c.js";\nawait c;\nexport {};\n'],
  ]);
  const place = 'require("node:url").pathToFileURL(__filename).href';
  const later = (file: string): string => `Promise.resolve().then(() => require("${file}"))`;
  const strict = '"use strict";\n';
  t.strictSame(Object.fromEntries(toCommonJs(files)), {
    'a.cjs': `#!/usr/bin/env node\n${strict}require("./b.cjs");\nconst zlib = require("node:zlib");\nconst { gunzip: g } = zlib;\ng(${place});\n`,
    'b.cjs': `${strict}const { c, d: e } = require("./sub/c.cjs");\nconst load = () => ${later('./sub/d.cjs')};\nmodule.exports = { f: load, e };\n`,
    'sub/c.cjs': `${strict}\nconst c = 1;\nconst d = () => ${later('node:http')};\nmodule.exports = { c, d };\n`,
    'sub/d.cjs': `${strict}module.exports = (async () => {\nconst { c } = require("./c.cjs");\nawait c;\n\n})();\n`,
  });
  t.equal(
    moduleInPlaceOf('x/b.js', files.get('b.js') ?? ''),
    'import all from "./b.cjs";\nexport const { f, e } = all;\n',
  );
  t.equal(moduleInPlaceOf('x/a.js', files.get('a.js') ?? ''), '#!/usr/bin/env node\nimport "./a.cjs";\n');
  t.end();
});

t.test('what cannot become CommonJS is refused', (t) => {
  for (const [reason, ...texts] of [
    [
      /import each other/,
      'import { b } from "./1.js";\nexport { b as a };\n',
      'import { a } from "./0.js";\nexport { a as b };\n',
    ],
    [/exports a variable: a/, 'let a = 1;\nexport { a };\n'],
    [/unknown form/, 'import a from "./1.js" with { type: "json" };\nexport {};\n'],
    [/waits while it is loaded/, 'const a = await 1;\nexport { a };\n'],
    [/does not end with an export/, 'run();\n'],
    [/cannot be changed/, 'export const a = 1;\nexport {};\n'],
  ] as const) {
    const files = new Map(texts.map((text, i) => [`${i}.js`, text]));
    t.throws(() => toCommonJs(files), { message: reason });
  }
  t.end();
});
