/**
 * Turns the joined files from ES modules into CommonJS. Node loads those with much less work: no promise for each import, no second
 * loader, no parser for the names that koffi exports. Half of a start of Node is saved for each process of a bus.
 *
 *      import { a as b } from "./base-1.js"   ─►  const { a: b } = require("./base-1.cjs");
 *      import("./ls-2.js")                    ─►  Promise.resolve().then(() => require("./ls-2.cjs"))
 *      export { run as main };                ─►  module.exports = { main: run };
 *
 * It knows only what the bundler writes: all imports at the beginning of a file, one export at its end. What is exported must not
 * be assigned anew later, because an importer gets the value.
 */
import { posix } from 'node:path';
import { compileFunction } from 'node:vm';

const SHEBANG = /^#!.*\n/;
const IMPORT = /^import (?:([\w$]+),? )?(?:\* as ([\w$]+) )?(?:\{ ([^}]*) \} )?(?:from )?"([^"]+)";$/;
const EXPORT = /(?<=^|\n)export \{ ?([^}]*?) ?\};\n*$/;
const PARAMETERS = ['exports', 'require', 'module', '__filename', '__dirname'];

/** The name of a file after the change. */
export function commonName(path: string): string {
  return path.replace(/\.js$/, '.cjs');
}

/** @returns the text of each file, by its path. @throws Error for a file that this does not know how to change */
export function toCommonJs(files: ReadonlyMap<string, string>): Map<string, string> {
  refuseCircles(files);
  return new Map([...files].map(([path, text]) => [commonName(path), changed(path, text)]));
}

function changed(path: string, text: string): string {
  const [shebang = ''] = SHEBANG.exec(text) ?? [];
  const lines = text.slice(shebang.length).split('\n');
  const first = lines.findIndex((line) => !line.startsWith('import '));
  const requires = lines.slice(0, first).map((line) => requireFor(path, line));
  const { body, exported } = withoutExport(path, lines.slice(first).join('\n'));
  const inner = `${requires.join('\n')}\n${withRequires(body)}`;
  const whole = `${inner}${exported}`;
  if (isFunctionBody(whole)) return `${shebang}"use strict";\n${whole}`;
  if (exported !== '') throw new Error(`${path} waits while it is loaded, so nothing can be imported from it`);
  const waiting = `module.exports = (async () => {\n${inner}\n})();\n`;
  if (!isFunctionBody(waiting)) throw new Error(`${path} cannot be changed to CommonJS`);
  return `${shebang}"use strict";\n${waiting}`;
}

function isFunctionBody(text: string): boolean {
  try {
    compileFunction(`"use strict";${text}`, PARAMETERS);
    return true;
  } catch {
    return false;
  }
}

function requireFor(path: string, line: string): string {
  const found = IMPORT.exec(line);
  if (found === null) throw new Error(`${path}: unknown form of import: ${line}`);
  const [, whole, namespace, names, from = ''] = found;
  const required = `require("${from.startsWith('.') ? commonName(from) : from}")`;
  const held = whole ?? namespace;
  // of a module of Node, and of a package in CommonJS, the default is the module
  if (whole !== undefined && from.startsWith('.')) throw new Error(`${path}: a default export of ${from}`);
  if (names === undefined) return held === undefined ? `${required};` : `const ${held} = ${required};`;
  const picked = `{ ${names.replaceAll(' as ', ': ')} }`;
  if (held === undefined) return `const ${picked} = ${required};`;
  return `const ${held} = ${required};\nconst ${picked} = ${held};`;
}

function withoutExport(path: string, text: string): { body: string; exported: string } {
  const found = EXPORT.exec(text);
  if (found === null) throw new Error(`${path} does not end with an export`);
  const names = (found[1] ?? '').split(', ').filter((name) => name !== '');
  const pairs = names.map((name) => name.split(' as ') as [string, string?]);
  const body = text.slice(0, found.index);
  for (const [name] of pairs) {
    if (new RegExp(`^let ${name.replaceAll('$', '\\$')}\\b`, 'm').test(body))
      throw new Error(`${path} exports a variable: ${name}`);
  }
  const list = pairs.map(([name, known]) => (known === undefined ? name : `${known}: ${name}`)).join(', ');
  return { body, exported: list === '' ? '' : `module.exports = { ${list} };\n` };
}

/** What is loaded later, and the place of a file. Packages that are loaded later may be ES modules. */
function withRequires(body: string): string {
  return body
    .replace(/\bimport\("(\.[^"]+|node:[^"]+)"\)/g, (_, from: string) => {
      return `Promise.resolve().then(() => require("${from.startsWith('.') ? commonName(from) : from}"))`;
    })
    .replaceAll('import.meta.url', 'require("node:url").pathToFileURL(__filename).href');
}

/** In a circle, a file would get the exports of another before that one has any. */
function refuseCircles(files: ReadonlyMap<string, string>): void {
  const done = new Set<string>();
  const visit = (path: string, above: readonly string[]): void => {
    if (above.includes(path)) throw new Error(`files import each other: ${[...above, path].join(' → ')}`);
    if (done.has(path)) return;
    for (const line of files.get(path)?.split('\n') ?? []) {
      const from = line.startsWith('import ') ? IMPORT.exec(line)?.[4] : undefined;
      if (from?.startsWith('.')) visit(posix.join(posix.dirname(path), from), [...above, path]);
    }
    done.add(path);
  };
  for (const path of files.keys()) visit(path, []);
}

/**
 * The ES module in the place of an entry, for those who know it by that name: packages that import it, and processes of
 * an earlier version that start it.
 * @param text of the entry before the change
 */
export function moduleInPlaceOf(path: string, text: string): string {
  const [shebang = ''] = SHEBANG.exec(text) ?? [];
  const file = `./${commonName(posix.basename(path))}`;
  const names = (EXPORT.exec(text)?.[1] ?? '').split(', ').filter((name) => name !== '');
  if (names.length === 0) return `${shebang}import "${file}";\n`;
  const known = names.map((name) => name.split(' as ').at(-1)).join(', ');
  return `${shebang}import all from "${file}";\nexport const { ${known} } = all;\n`;
}
