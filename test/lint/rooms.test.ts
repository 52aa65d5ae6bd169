/** Compares the rooms of the tree (rooms.ts) with the real imports; and tests that the checker finds faults. */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import t from 'tap';
import {
  circles,
  crowdedFolders,
  faultsOfImports,
  faultsOfTable,
  importsOf,
  LARGEST_SHARE,
  picture,
  type Room,
  readTree,
  roomOf,
  shares,
  type Tree,
} from './rooms.js';

const root = resolve(import.meta.dirname, '../../..');
const tree = readTree(root);

t.test('the table goes down only', async (t) => t.strictSame(faultsOfTable(), []));
t.test('each import is one that the table allows', async (t) => t.strictSame(faultsOfImports(tree), []));
t.test('no files import each other in a circle', async (t) => t.strictSame(circles(tree), []));
t.test('no client loads the schemas of the control interface', async (t) => {
  for (const door of ['cli/main.ts', 'cli/tap-ctl/main.ts', 'cli/mount-helper/mount.ts', 'mount/index.ts']) {
    t.notOk(loads(tree, door).has('mount/control/routes.ts'), door);
  }
  t.ok(loads(tree, 'mount/keeper/main.ts').has('mount/control/routes.ts'), 'the keeper does');
});

t.test('no folder is crowded', async (t) => t.strictSame(crowdedFolders(tree), []));

t.test('no room is most of the code', async (t) => {
  const [largest] = shares(tree);
  t.ok(largest !== undefined && largest[2] <= LARGEST_SHARE, `the largest is ${largest}`);
});

t.test('the picture in docs/architecture.md is the table', async (t) => {
  t.ok(
    readFileSync(resolve(root, 'docs/architecture.md'), 'utf8').includes(picture()),
    'node dist/test/lint/rooms.js prints it',
  );
});

/** The files that a program may come to load, now or later. */
function loads({ imports }: Tree, start: string): Set<string> {
  const loaded = new Set([start]);
  for (const file of loaded) {
    for (const { from, to, isType } of imports) if (from === file && !isType) loaded.add(to);
  }
  return loaded;
}

// a small example tree, so that a checker that finds nothing does not pass
const HOUSE: Record<string, Room> = {
  'up/': { is: '', may: ['type middle/', 'low/'] },
  'middle/': { is: '', may: ['low/door.ts'] },
  'low/door.ts': { is: '', may: [] },
  'low/': { is: '', may: ['low/door.ts'] },
};

function treeOf(files: Record<string, string>): Tree {
  const entries = Object.entries(files);
  return { files: new Map(entries), imports: entries.flatMap(([path, text]) => importsOf(path, text)) };
}

const seen: [what: string, files: Record<string, string>, faults: number][] = [
  ['an import down', { 'up/a.ts': "import { b } from '../low/b.js';", 'low/b.ts': '' }, 0],
  ['an import up', { 'low/b.ts': "import { a } from '../up/a.js';", 'up/a.ts': '' }, 1],
  ['a type import up', { 'low/b.ts': "import type { A } from '../up/a.js';", 'up/a.ts': '' }, 1],
  ['an import type up', { 'low/b.ts': "export type A = import('../up/a.js').A;", 'up/a.ts': '' }, 1],
  ['a lazy import up', { 'low/b.ts': "export const a = () => import('../up/a.js');", 'up/a.ts': '' }, 1],
  ['a re-export up', { 'low/b.ts': "export { a } from '../up/a.js';", 'up/a.ts': '' }, 1],
  ['a type where types are allowed', { 'up/a.ts': "import { type M } from '../middle/m.js';", 'middle/m.ts': '' }, 0],
  [
    'a value where types are allowed',
    { 'up/a.ts': "import { m, type M } from '../middle/m.js';", 'middle/m.ts': '' },
    1,
  ],
  ['the door of a room', { 'middle/m.ts': "import { d } from '../low/door.js';", 'low/door.ts': '' }, 0],
  ['past the door', { 'middle/m.ts': "import { b } from '../low/b.js';", 'low/b.ts': '' }, 1],
  ['a room that the table does not know', { 'cellar/c.ts': '' }, 1],
];

t.test('what the checker sees', async (t) => {
  for (const [what, files, faults] of seen) t.equal(faultsOfImports(treeOf(files), HOUSE).length, faults, what);
  t.equal(roomOf('low/door.ts', HOUSE), 'low/door.ts');
  t.equal(faultsOfTable({ ...HOUSE, 'low/': { is: '', may: ['up/'] } }).length, 1, 'a row that goes up');
  const circle = treeOf({
    'low/a.ts': "import type { B } from './b.js';",
    'low/b.ts': "import type { C } from './c.js';",
    'low/c.ts': "import { a } from './a.js';",
    'low/d.ts': "import { a } from './a.js';",
  });
  t.strictSame(circles(circle), [['low/a.ts', 'low/b.ts', 'low/c.ts']]);
  const many = treeOf(Object.fromEntries(Array.from({ length: 21 }, (_, n) => [`low/f${n}.ts`, ''])));
  t.equal(crowdedFolders(many).length, 1);
});
