/**
 * Removes files of one line. If a lazily loaded module shares a file with others, the bundler writes a stub, and loads that:
 *
 *      import("./cli/commands/ls-1.js")   ls-1.js: export { t as register } from "../../cli-2.js";
 *
 * To load a file takes time, so the importer asks for the names itself:
 *
 *      import("./cli-2.js").then((m) => ({ register: m.t }))
 */
import { posix } from 'node:path';

interface Stub {
  /** the file that has the code */
  readonly target: string;
  /** the names as its users know them, and as the target exports them */
  readonly names: readonly (readonly [known: string, exported: string])[];
}

const STUB = /^(?:import "[^"]+";\n)*export \{ ([^}]+) \} from "([^"]+)";\n*$/;

/**
 * @param files the text of each file, by its path
 * @param below only files in this directory are removed
 */
export function withoutStubs(files: ReadonlyMap<string, string>, below: string): Map<string, string> {
  const stubs = new Map<string, Stub>();
  for (const [path, text] of files) {
    const [, names, target] = (path.startsWith(`${below}/`) && STUB.exec(text)) || [];
    if (names !== undefined && target !== undefined) {
      stubs.set(path, { target: posix.join(posix.dirname(path), target), names: names.split(', ').map(parseName) });
    }
  }
  const kept = [...files].filter(([path]) => !stubs.has(path));
  return new Map(kept.map(([path, text]) => [path, loadTargets(path, text, stubs)]));
}

function parseName(text: string): readonly [string, string] {
  const [exported = '', known = exported] = text.split(' as ');
  return [known, exported];
}

function loadTargets(path: string, text: string, stubs: ReadonlyMap<string, Stub>): string {
  return text.replace(/import\("(\.[^"]+)"\)/g, (whole, imported: string) => {
    const stub = stubs.get(posix.join(posix.dirname(path), imported));
    if (stub === undefined) return whole;
    const target = posix.relative(posix.dirname(path), stub.target);
    const names = stub.names.map(([known, exported]) => `${known}: m.${exported}`).join(', ');
    return `import("${target.startsWith('.') ? target : `./${target}`}").then((m) => ({ ${names} }))`;
  });
}
