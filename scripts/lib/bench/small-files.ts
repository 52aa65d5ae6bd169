/**
 * Makes many small files. It is a separate program because it blocks:
 *
 *     node small-files.js create|all DIRECTORY
 *
 * `create` makes them; `all` also reads, renames and removes them.
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const DIRECTORIES = 150;
const FILES_EACH = 80;
const LARGEST_BYTES = 16 << 10;

function* eachFile(root: string): Generator<string> {
  for (let d = 0; d < DIRECTORIES; d++) for (let f = 0; f < FILES_EACH; f++) yield join(root, `d${d}`, `f${f}`);
}

function create(root: string): void {
  for (let d = 0; d < DIRECTORIES; d++) mkdirSync(join(root, `d${d}`));
  let n = 0;
  // sizes vary, and are the same in each run
  for (const path of eachFile(root)) writeFileSync(path, Buffer.alloc((++n * 7919) % LARGEST_BYTES, n));
}

function readAll(root: string): void {
  for (const directory of readdirSync(root).filter((name) => name.startsWith('d'))) {
    for (const name of readdirSync(join(root, directory))) readFileSync(join(root, directory, name));
  }
}

function removeAll(root: string): void {
  for (const path of eachFile(root)) renameSync(path, `${path}.old`);
  for (let d = 0; d < DIRECTORIES; d++) rmSync(join(root, `d${d}`), { recursive: true });
}

const [what, root] = process.argv.slice(2);
if (root === undefined || (what !== 'create' && what !== 'all')) throw new TypeError('create|all DIRECTORY');
create(root);
if (what === 'all') {
  readAll(root);
  removeAll(root);
}
