/**
 * drivers/names.ts has the list of drivers, and no other file has one: neither as words beside each other, in a message
 * or a comment, nor apart, as keys or values of a table. So a driver that is added there is known everywhere.
 */
import { resolve } from 'node:path';
import t from 'tap';
import ts from 'typescript';
import { driverNames } from '../../drivers/names.js';
import { readTree } from './rooms.js';

/** words of other things that are called as a driver is */
const OTHER_MEANINGS = new Map([
  ['mount/ending/write-back.ts', ['sync']],
  // formats, whether or not a driver reads them
  ['cli/disk-spec/words.ts', ['vdi', 'vhd', 'vhdx', 'vmdk']],
  ['drivers/creating/formats.ts', ['qcow2', 'vdi', 'vhd', 'vmdk']],
  ['drivers/examining/formats.ts', ['qcow2', 'vdi', 'vhdx', 'vmdk']],
  ['drivers/formats/foreign.ts', ['qcow2', 'vdi', 'vhd', 'vhdx', 'vmdk']],
  ['drivers/formats/qemu-names.ts', ['aio', 'qcow2', 'vdi', 'vhd', 'vhdx', 'vmdk']],
]);

const BETWEEN = String.raw`[\s'"\`|:/,;*]*(?:\b(?:or|and)\b)?[\s'"\`|:/,;*]*`;

/** Where a text names two drivers or more. */
function listsIn(path: string, text: string): string[] {
  const names = driverNames.filter((name) => !OTHER_MEANINGS.get(path)?.includes(name));
  const name = `\\b(?:${names.join('|')})\\b`;
  // drivers that stack in a spec, as `ram:vhd:PATH`
  const withoutStacks = text.replace(new RegExp(`${name}:(?=${name}:)`, 'g'), '…:');
  const besides = [...withoutStacks.matchAll(new RegExp(`${name}(?:${BETWEEN}${name})+`, 'g'))]
    .filter(([words]) => new Set(words.match(new RegExp(name, 'g'))).size > 1)
    .map(([words]) => `${path}: ${words.replace(/\s+/g, ' ')}`);
  const alone = new Set<string>();
  const visit = (node: ts.Node): void => {
    const isWord = ts.isStringLiteralLike(node) || (ts.isIdentifier(node) && isKey(node));
    if (isWord && names.includes(node.text)) alone.add(node.text);
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true));
  return alone.size > 1 ? [...besides, `${path}: ${[...alone].join(' … ')}`] : besides;
}

function isKey(node: ts.Identifier): boolean {
  const { parent } = node;
  return (ts.isPropertyAssignment(parent) || ts.isPropertySignature(parent)) && parent.name === node;
}

t.test('no other file has a list of the drivers', async (t) => {
  const { files } = readTree(resolve(import.meta.dirname, '../../..'));
  const apart = [...files].filter(
    ([path]) => path !== 'drivers/names.ts' && !driverNames.some((name) => path.startsWith(`drivers/${name}/`)),
  );
  t.ok(apart.length > 200, `${apart.length} files were read`);
  t.same(
    apart.flatMap(([path, text]) => listsIn(path, text)),
    [],
  );
});

// so that a checker which sees nothing does not pass
const LISTS = [
  "const names = ['aio', 'ram', 'sync'];",
  'const types = { aio: 0, sync: 1 };',
  'const types = { \'aio\': 0, "sync": 1 };',
  "type Name = 'aio' | 'ram';",
  "if (name === 'aio') a();\nelse if (name === 'sync') b();",
  "switch (name) {\n  case 'aio':\n    a();\n    break;\n  case 'sync':\n    b();\n}",
  'const hint = `use aio or sync`;',
  "const hint = 'drivers are aio, ram, sync';",
  '/** `aio`, `ram` or `sync` */\nexport const a = 1;',
  'const pattern = /^(?:aio|ram):/;',
];
const NO_LISTS = [
  "const driver = 'aio';",
  "const examples = ['fusetap attach aio:disk.img', 'fusetap attach ram:golden.img'];",
  "const map = new Map([['aio', 'aio']]);",
  'const hint = `write aio:PATH`;',
  "const examples = ['fusetap attach ram:sync:golden.img'];",
];

t.test('the checker sees lists, and lists only', async (t) => {
  for (const text of LISTS) t.not(listsIn('a.ts', text).length, 0, text);
  for (const text of NO_LISTS) t.same(listsIn('a.ts', text), [], text);
});
