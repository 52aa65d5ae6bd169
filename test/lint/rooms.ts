/**
 * The rooms of the source tree and who may import whom. One table: the test reads the real imports against it, and the
 * picture in docs/architecture.md is drawn from it.
 *
 *     node dist/test/lint/rooms.js            the picture, as docs/architecture.md has it
 *     node dist/test/lint/rooms.js --check    what breaks the table, each room's share of the code
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import ts from 'typescript';

/**
 * A row of the table. `may` names rooms: all of a room (`mount/runtime`), its types only (`type mount/control`), or one
 * file of it (`mount/images/mode.ts`). A room may always import itself.
 */
export interface Room {
  /** what the room is, and which process runs it */
  readonly is: string;
  readonly may: readonly string[];
}

const CLI = [
  'cli/',
  'cli/disk-spec/',
  'mount/client/',
  'mount/file-system/',
  'mount/tap/',
  'mount/doctor/',
  'mount/export/',
  'mount/offline/',
  'mount/log/',
  'type mount/control/',
  'mount/slots/',
  'mount/images/mode.ts',
  'mount/version.ts',
  'drivers/errors.ts',
  'drivers/names.ts',
  'drivers/creating/formats.ts',
  'drivers/graph.ts',
  'drivers/remote-uris.ts',
  'drivers/nbd/uri.ts',
  'drivers/quote.ts',
  'drivers/human-size.ts',
  'drivers/defined.ts',
];

/** the rooms that every part of the keeper may import */
const BELOW_KEEPER = [
  'mount/server/passed-fds.ts',
  'mount/server/commands.ts',
  'mount/ending/',
  'mount/control/',
  'mount/images/',
  'mount/ram/',
  'mount/holders/',
  'mount/ledger/',
  'mount/log/',
  'mount/runtime/',
  'mount/slots/',
  'mount/fuse/mounting/',
  'mount/version.ts',
  'drivers/',
  'system/',
];

/**
 * A file belongs to the row with the longest matching name. A row may be one file: a door with rules of its own.
 * Rows are ordered: none may import a row above it, so the table cannot have circles between rooms.
 */
export const ROOMS: Readonly<Record<string, Room>> = {
  'cli/mount-helper/': { is: 'arguments of mount(8), translated for `fusetap mount`', may: ['cli/main.ts', ...CLI] },
  'cli/main.ts': { is: 'runs a command, ends with its exit code', may: ['cli/program.ts', ...CLI] },
  'cli/program.ts': { is: 'the list of commands', may: ['cli/commands/', ...CLI] },
  'cli/commands/': { is: 'one file for each command', may: CLI },
  'cli/tap-ctl/': { is: 'a second program, with the commands of tapdisk', may: CLI },
  'cli/': { is: 'what commands share: options, output, completion', may: CLI.slice(1) },
  'cli/disk-spec/': {
    is: 'the strings that name a disk',
    may: [
      'mount/slots/',
      'mount/images/mode.ts',
      'mount/client/',
      'type mount/control/',
      'drivers/errors.ts',
      'drivers/names.ts',
      'drivers/graph.ts',
      'drivers/remote-uris.ts',
      'drivers/quote.ts',
    ],
  },
  'mount/bus/': {
    is: 'one-line files that processes of the previous version load',
    may: ['mount/server/', 'mount/keeper/'],
  },
  'mount/index.ts': {
    is: 'the library',
    may: [
      'mount/client/',
      'mount/open-disk.ts',
      'type mount/control/',
      'mount/images/mode.ts',
      'mount/version.ts',
      'drivers/',
    ],
  },
  'mount/offline/': {
    is: 'makes, describes and checks images that no bus serves',
    may: [
      'mount/open-disk.ts',
      'mount/client/',
      'type mount/control/',
      'mount/images/',
      'mount/runtime/',
      'drivers/creating/formats.ts',
      'drivers/',
      'system/',
    ],
  },
  'mount/open-disk.ts': {
    is: 'a disk without a bus',
    may: ['mount/images/', 'mount/client/', 'drivers/', 'system/'],
  },
  'mount/export/': {
    is: 'offers a file of a bus to NBD clients',
    may: ['drivers/', 'system/'],
  },
  'mount/doctor/': {
    is: 'checks what works on this machine',
    may: [
      'mount/file-system/',
      'mount/file-system/tools/',
      'mount/ram/',
      'mount/runtime/',
      'mount/fuse/protocol/',
      'drivers/',
      'system/',
    ],
  },
  'mount/tap/': {
    is: 'the life of a tapdisk, as tap-ctl sees it',
    may: [
      'mount/client/',
      'mount/control/',
      'mount/runtime/',
      'mount/slots/',
      'mount/keeper/start.ts',
      'drivers/remote-uris.ts',
      'drivers/',
      'system/',
    ],
  },
  'mount/file-system/': {
    is: 'mounts the file system of an image',
    may: [
      'mount/file-system/tools/',
      'mount/client/',
      'mount/control/',
      'mount/holders/',
      'mount/runtime/',
      'drivers/',
      'system/',
    ],
  },
  'mount/file-system/tools/': {
    is: 'mount(8), blkid(8) and FUSE programs',
    may: ['drivers/', 'system/'],
  },
  'mount/client/': {
    is: 'the requests of a program to a bus',
    may: [
      'mount/control/',
      'mount/log/',
      'mount/holders/',
      'mount/ram/describe-memory.ts',
      'mount/fuse/mounting/dead-mounts.ts',
      'mount/runtime/',
      'mount/slots/',
      'mount/transport/',
      'mount/keeper/start.ts',
      'drivers/',
      'system/',
    ],
  },
  'mount/keeper/': {
    is: 'the keeper process, which joins the parts below',
    may: [
      'mount/keeper/start.ts',
      'mount/keeper/verbs/',
      'mount/keeper/sources/',
      'mount/fuse/protocol/thread-counts.ts',
      'mount/keeper/supervision/',
      'mount/keeper/vbds/',
      'mount/counting/',
      ...BELOW_KEEPER,
    ],
  },
  'mount/keeper/start.ts': {
    is: 'starts a keeper: the only way to do so',
    may: ['type mount/control/', 'mount/systemd/', 'mount/runtime/', 'drivers/', 'system/'],
  },
  'mount/keeper/verbs/': {
    is: '(keeper) attach, detach, pause, save, reset, swap, resize, reread, commit',
    may: [
      'mount/keeper/sources/',
      'mount/keeper/vbds/',
      'mount/keeper/supervision/',
      'mount/pausing/',
      ...BELOW_KEEPER,
    ],
  },
  'mount/keeper/sources/': {
    is: '(keeper) opens the files and memories of a disk',
    may: ['mount/keeper/vbds/', 'mount/keeper/supervision/', ...BELOW_KEEPER],
  },
  'mount/keeper/vbds/': {
    is: '(keeper) what is attached, and its resources',
    may: ['mount/keeper/supervision/', 'type mount/counting/', ...BELOW_KEEPER],
  },
  'mount/keeper/supervision/': {
    is: '(keeper) keeps a server running',
    may: [
      'mount/server/passed-fds.ts',
      'mount/server/commands.ts',
      'mount/ledger/',
      'mount/runtime/',
      'drivers/',
      'system/',
    ],
  },
  'mount/server/': {
    is: 'the server process, which can be replaced',
    may: [
      'mount/server/passed-fds.ts',
      'mount/server/commands.ts',
      'mount/pausing/',
      'mount/counting/',
      'mount/log/',
      'mount/ending/',
      'mount/fuse/event-loop/',
      'mount/fuse-native/',
      'mount/ram/',
      'mount/images/',
      'mount/holders/',
      'mount/ledger/',
      'mount/transport/',
      'mount/control/',
      'mount/slots/',
      'mount/runtime/',
      'mount/fuse/mounting/',
      'mount/version.ts',
      'drivers/',
      'system/',
    ],
  },
  'mount/server/passed-fds.ts': {
    is: 'passes descriptors from keeper to server',
    may: ['mount/server/commands.ts', 'drivers/', 'system/'],
  },
  'mount/server/commands.ts': {
    is: 'the messages between keeper and server',
    may: [
      'type mount/ram/',
      'type mount/transport/',
      'type mount/control/',
      'type mount/runtime/',
      'mount/images/mode.ts',
      'drivers/',
    ],
  },
  'mount/counting/': {
    is: '(keeper, or a server without one) what the bus counts, for those who watch it',
    may: ['type mount/control/', 'mount/ledger/', 'system/'],
  },
  'mount/pausing/': {
    is: '(keeper, or a server without one) pauses of vbds, here and on other buses',
    may: ['mount/control/', 'mount/runtime/', 'drivers/', 'system/'],
  },
  'mount/ending/': {
    is: '(keeper, or a server without one) how a bus ends',
    may: ['type mount/control/', 'mount/holders/', 'mount/runtime/', 'drivers/', 'system/'],
  },
  'mount/fuse-native/': {
    is: '(server) the second transport',
    may: ['mount/labels/', 'mount/transport/', 'mount/holders/', 'mount/ledger/', 'drivers/', 'system/'],
  },
  'mount/fuse/event-loop/': {
    is: '(server, main thread) names, attributes, handles',
    may: [
      'mount/fuse/thread/',
      'mount/fuse/protocol/',
      'mount/labels/',
      'mount/transport/',
      'mount/ledger/',
      'mount/images/copy-lease.ts',
      'drivers/',
      'system/',
    ],
  },
  'mount/fuse/thread/': {
    is: '(server, threads) reads and writes of windows',
    may: ['mount/fuse/protocol/', 'mount/transport/', 'mount/ledger/', 'mount/ram/growth.ts', 'drivers/', 'system/'],
  },
  'mount/fuse/mounting/dead-mounts.ts': {
    is: 'whether a mount still answers',
    may: ['mount/fuse/mounting/', 'drivers/', 'system/'],
  },
  'mount/fuse/mounting/': { is: '(keeper) mount, INIT, unmount', may: ['mount/fuse/protocol/', 'drivers/', 'system/'] },
  'mount/ram/describe-memory.ts': {
    is: 'the memory of all ram images, found by their links',
    may: ['type mount/control/', 'mount/ram/', 'mount/runtime/', 'drivers/', 'system/'],
  },
  'mount/ram/': {
    is: 'images in memory',
    may: [
      'mount/images/',
      'type mount/control/',
      'type mount/transport/',
      'mount/runtime/',
      'mount/ledger/',
      'mount/ram/growth.ts',
      'drivers/',
      'system/',
    ],
  },
  'mount/ram/growth.ts': { is: '(threads) credit to fill holes', may: ['mount/ledger/', 'drivers/', 'system/'] },
  'mount/fuse/protocol/thread-counts.ts': { is: 'how many threads serve a bus', may: [] },
  'mount/fuse/protocol/': { is: 'the FUSE protocol', may: ['type mount/transport/', 'drivers/', 'system/'] },
  'mount/labels/': {
    is: '(server) the names of the files of a bus, read from their disks',
    may: ['mount/transport/', 'mount/ledger/', 'mount/slots/', 'drivers/superblocks/', 'drivers/', 'system/'],
  },
  'mount/transport/': {
    is: 'what all transports have in common',
    may: ['mount/ledger/', 'mount/slots/', 'drivers/', 'system/'],
  },
  'mount/control/': {
    is: 'the protocol between client and bus',
    may: ['mount/runtime/', 'mount/images/mode.ts', 'type mount/ledger/', 'mount/version.ts', 'drivers/', 'system/'],
  },
  'mount/version.ts': { is: 'the version', may: [] },
  'mount/images/': {
    is: 'opening and claiming an image',
    may: ['mount/images/copy-lease.ts', 'mount/images/mode.ts', 'mount/holders/', 'drivers/', 'system/'],
  },
  'mount/images/copy-lease.ts': {
    is: 'which process may write without the lock of a file',
    may: ['drivers/', 'system/'],
  },
  'mount/images/mode.ts': { is: 'r, w, w!', may: [] },
  'mount/holders/': { is: 'finds the processes that use a file', may: ['mount/runtime/', 'drivers/', 'system/'] },
  'mount/ledger/': { is: 'the state that outlives a server', may: ['drivers/', 'system/'] },
  'mount/systemd/': { is: 'the unit of systemd in which a bus lives', may: ['mount/runtime/', 'drivers/', 'system/'] },
  'mount/log/': {
    is: 'reads the log of a bus, and follows it',
    may: ['mount/runtime/', 'drivers/', 'system/'],
  },
  'mount/runtime/': { is: 'the runtime directory: places, locks, log', may: ['drivers/', 'system/'] },
  'mount/slots/': { is: "Xen's slot numbers and names", may: ['drivers/', 'system/'] },
  'drivers/graph/': {
    is: 'opens the tree of a disk',
    may: ['drivers/registry.ts', 'drivers/'],
  },
  'drivers/registry.ts': {
    is: 'from the name of a driver to its code',
    may: ['drivers/names.ts', 'drivers/errors.ts', 'drivers/quote.ts', 'drivers/'],
  },
  'drivers/names.ts': {
    is: 'the list of drivers; loads the code of one when asked',
    may: [
      'drivers/rbd/',
      'drivers/qcow2/',
      'drivers/vdi/',
      'drivers/vhd/',
      'drivers/vhdx/',
      'drivers/vmdk/',
      'drivers/',
    ],
  },
  'drivers/examining/': {
    is: 'describes and checks images',
    may: ['drivers/qcow2/', 'drivers/vdi/', 'drivers/vhd/', 'drivers/vhdx/', 'drivers/vmdk/', 'drivers/'],
  },
  'drivers/creating/formats.ts': {
    is: 'the formats of new images; loads the code of one when asked',
    may: ['drivers/creating/', 'drivers/qcow2/', 'drivers/'],
  },
  'drivers/creating/': {
    is: 'makes new images',
    may: ['drivers/qcow2/', 'drivers/errors.ts', 'drivers/quote.ts', 'drivers/defined.ts', 'drivers/', 'system/'],
  },
  'drivers/superblocks/': {
    is: 'the type, label and UUID of what a disk holds',
    may: ['drivers/vhdx/', 'drivers/'],
  },
  'drivers/vhd/': {
    is: 'VHD images',
    may: ['drivers/blocks/', 'drivers/lookup/', 'drivers/', 'drivers/errors.ts', 'drivers/quote.ts'],
  },
  'drivers/vdi/': { is: 'VDI images', may: ['drivers/blocks/', 'drivers/lookup/', 'drivers/'] },
  'drivers/blocks/': {
    is: 'disks of blocks, each at its place in an image',
    may: ['drivers/lookup/', 'drivers/', 'drivers/errors.ts'],
  },
  'drivers/qcow2/': {
    is: 'qcow2 images',
    may: ['drivers/lookup/', 'drivers/', 'drivers/errors.ts', 'drivers/quote.ts', 'drivers/defined.ts', 'system/'],
  },
  'drivers/rbd/': {
    is: 'images in a Ceph cluster',
    may: ['drivers/', 'drivers/rbd/uri.ts', 'drivers/errors.ts', 'drivers/quote.ts', 'system/'],
  },
  'drivers/vhdx/': {
    is: 'VHDX images',
    may: ['drivers/lookup/', 'drivers/', 'drivers/errors.ts', 'drivers/quote.ts'],
  },
  'drivers/vmdk/': {
    is: 'VMDK images',
    may: ['drivers/lookup/', 'drivers/', 'drivers/graph.ts', 'drivers/errors.ts', 'drivers/quote.ts'],
  },
  'drivers/lookup/': {
    is: 'disks whose parts are looked up in tables',
    may: ['drivers/', 'drivers/errors.ts', 'system/'],
  },
  'drivers/': {
    is: 'what a disk is',
    may: [
      'drivers/graph.ts',
      'drivers/remote-uris.ts',
      'drivers/nbd/uri.ts',
      'drivers/https/uri.ts',
      'drivers/rbd/uri.ts',
      'drivers/errors.ts',
      'drivers/quote.ts',
      'system/',
    ],
  },
  'drivers/remote-uris.ts': {
    is: 'the URIs of disks on networks',
    may: ['drivers/nbd/uri.ts', 'drivers/https/uri.ts', 'drivers/rbd/uri.ts'],
  },
  'drivers/https/uri.ts': { is: 'the URLs of images on web servers', may: ['drivers/errors.ts', 'drivers/quote.ts'] },
  'drivers/rbd/uri.ts': { is: 'the names of images in Ceph', may: ['drivers/errors.ts', 'drivers/quote.ts'] },
  'drivers/nbd/uri.ts': { is: 'the names of exports of NBD servers', may: ['drivers/errors.ts', 'drivers/quote.ts'] },
  'drivers/graph.ts': { is: 'the tree of a disk, as data', may: ['drivers/errors.ts', 'drivers/quote.ts'] },
  'drivers/defined.ts': { is: 'optional properties', may: [] },
  'drivers/quote.ts': { is: 'quotes values in messages', may: [] },
  'drivers/human-size.ts': { is: 'prints sizes for people', may: [] },
  'drivers/errors.ts': { is: 'the one error class', may: ['system/'] },
  'system/': { is: 'the operating system', may: [] },
};

/** No room may be more than this share of the code: such a large room has several purposes. */
export const LARGEST_SHARE = 0.16;
/** files in one folder, but for commands, of which each is a file by design */
export const MOST_FILES = 20;
const MANY_FILES = ['cli/commands'];

export interface Import {
  readonly from: string;
  readonly to: string;
  /** nothing of it is left when the program runs */
  readonly isType: boolean;
}

export interface Tree {
  /** files with their text, by their path from the top of the repository */
  readonly files: ReadonlyMap<string, string>;
  readonly imports: readonly Import[];
}

/** All TypeScript files of these folders, and what they import of each other. */
export function readTree(root: string, folders: readonly string[] = ['cli', 'mount', 'drivers', 'system']): Tree {
  const files = new Map<string, string>();
  for (const folder of folders) {
    for (const entry of readdirSync(join(root, folder), { recursive: true, withFileTypes: true })) {
      if (!entry.isFile() || !entry.name.endsWith('.ts') || entry.name.endsWith('.d.ts')) continue;
      const path = relative(root, join(entry.parentPath, entry.name));
      files.set(path, readFileSync(join(root, path), 'utf8'));
    }
  }
  return { files, imports: [...files].flatMap(([path, text]) => importsOf(path, text)) };
}

/** Static, dynamic and type imports, and re-exports, of files of ours. */
export function importsOf(path: string, text: string): Import[] {
  const found: Import[] = [];
  const add = (specifier: ts.Node | undefined, isType: boolean): void => {
    if (specifier === undefined || !ts.isStringLiteralLike(specifier) || !specifier.text.startsWith('.')) return;
    const to = normalize(join(dirname(path), specifier.text)).replace(/\.js$/, '.ts');
    found.push({ from: path, to, isType });
  };
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node)) add(node.moduleSpecifier, isTypeImport(node.importClause));
    else if (ts.isExportDeclaration(node)) add(node.moduleSpecifier, isTypeExport(node));
    else if (ts.isImportTypeNode(node))
      add(ts.isLiteralTypeNode(node.argument) ? node.argument.literal : undefined, true);
    else if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
      add(node.arguments[0], false);
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, false));
  return found;
}

function isTypeImport(clause: ts.ImportClause | undefined): boolean {
  if (clause === undefined) return false;
  if (clause.isTypeOnly) return true;
  const names = clause.namedBindings;
  if (clause.name !== undefined || names === undefined || !ts.isNamedImports(names)) return false;
  return names.elements.every((name) => name.isTypeOnly);
}

function isTypeExport(node: ts.ExportDeclaration): boolean {
  if (node.isTypeOnly) return true;
  const names = node.exportClause;
  return names !== undefined && ts.isNamedExports(names) && names.elements.every((name) => name.isTypeOnly);
}

/** The room of a file; undefined: a folder that the table does not know. */
export function roomOf(path: string, rooms: Readonly<Record<string, Room>> = ROOMS): string | undefined {
  return Object.keys(rooms)
    .filter((room) => (room.endsWith('/') ? path.startsWith(room) : path === room))
    .sort((a, b) => b.length - a.length)[0];
}

/** Rows that name a room above them, or a room that does not exist. */
export function faultsOfTable(rooms: Readonly<Record<string, Room>> = ROOMS): string[] {
  const order = Object.keys(rooms);
  return Object.entries(rooms).flatMap(([room, { may }], index) =>
    may
      .map((entry) => entry.replace(/^type /, ''))
      .filter((entry) => !order.slice(index + 1).includes(entry))
      .map((entry) => `${room} may import ${entry}, which is no row below it`),
  );
}

/** Imports that the table does not allow, and files without a room. */
export function faultsOfImports(tree: Tree, rooms: Readonly<Record<string, Room>> = ROOMS): string[] {
  const strangers = [...tree.files.keys()].filter((path) => roomOf(path, rooms) === undefined);
  const faults = tree.imports.filter((edge) => !isAllowed(edge, rooms));
  return [
    ...strangers.map((path) => `${path} is in no room: add a row to the table`),
    ...faults.map(({ from, to, isType }) => `${from} imports ${isType ? 'types of ' : ''}${to}`),
  ];
}

function isAllowed({ from, to, isType }: Import, rooms: Readonly<Record<string, Room>>): boolean {
  const [room, other] = [roomOf(from, rooms), roomOf(to, rooms)];
  if (room === undefined || other === undefined) return false;
  if (room === other) return true;
  const { may } = rooms[room] as Room;
  const allows = (name: string): boolean => may.includes(name) || (isType && may.includes(`type ${name}`));
  // a file that may import a room may also import its single-file rooms
  return allows(other) || allows(to) || allows(`${dirname(other)}/`);
}

/** Files that import each other in a circle, types included; each circle once. */
export function circles(tree: Tree): string[][] {
  const edges = new Map<string, string[]>();
  for (const { from, to } of tree.imports) edges.set(from, [...(edges.get(from) ?? []), to]);
  const reach = (start: string): Set<string> => {
    const seen = new Set<string>();
    const next = [...(edges.get(start) ?? [])];
    for (let file = next.pop(); file !== undefined; file = next.pop()) {
      if (seen.has(file)) continue;
      seen.add(file);
      next.push(...(edges.get(file) ?? []));
    }
    return seen;
  };
  const reached = new Map([...tree.files.keys()].map((file) => [file, reach(file)]));
  const found = new Map<string, string[]>();
  for (const [file, below] of reached) {
    if (!below.has(file)) continue;
    const circle = [...below].filter((other) => reached.get(other)?.has(file)).sort();
    found.set(circle.join(), circle);
  }
  return [...found.values()];
}

/** Lines of code of each room and its share of the whole, the largest first. */
export function shares(
  tree: Tree,
  rooms: Readonly<Record<string, Room>> = ROOMS,
): [room: string, lines: number, share: number][] {
  const lines = new Map<string, number>();
  let whole = 0;
  for (const [path, text] of tree.files) {
    const count = text.split('\n').length - 1;
    const room = roomOf(path, rooms) ?? dirname(path);
    lines.set(room, (lines.get(room) ?? 0) + count);
    whole += count;
  }
  return [...lines]
    .map(([room, count]): [string, number, number] => [room, count, count / whole])
    .sort((a, b) => b[1] - a[1]);
}

/** Folders with too many files. */
export function crowdedFolders(tree: Tree): string[] {
  const counts = new Map<string, number>();
  for (const path of tree.files.keys()) counts.set(dirname(path), (counts.get(dirname(path)) ?? 0) + 1);
  return [...counts]
    .filter(([folder, count]) => count > MOST_FILES && !MANY_FILES.includes(folder))
    .map(([folder, count]) => `${folder} has ${count} files, more than ${MOST_FILES}`);
}

const PICTURE_COLUMNS = 118;

/** The table as docs/architecture.md shows it. `drivers/` and `system/`, which all may use, are left out. */
export function picture(rooms: Readonly<Record<string, Room>> = ROOMS): string {
  const name = (room: string): string => room.replace(/^(type )?mount\//, '$1').replace(/\/$/, '');
  const width = Math.max(...Object.keys(rooms).map((room) => name(room).length)) + 2;
  const lines = Object.entries(rooms).flatMap(([room, { is, may }]) => {
    const below = may.filter((entry) => !/^(drivers|system)\//.test(entry)).map(name);
    return [
      name(room).padEnd(width) + is,
      ...wrap(below, PICTURE_COLUMNS - width).map((line) => ' '.repeat(width) + line),
    ];
  });
  return lines.map((line) => `    ${line}`).join('\n');
}

/** `→ a, b, c` in lines that are no wider than they may be. */
function wrap(names: readonly string[], columns: number): string[] {
  const lines: string[] = [];
  for (const [index, name] of names.entries()) {
    const word = index === names.length - 1 ? name : `${name},`;
    const last = lines.at(-1);
    if (last === undefined) lines.push(`→ ${word}`);
    else if (last.length + 1 + word.length > columns) lines.push(`  ${word}`);
    else lines[lines.length - 1] = `${last} ${word}`;
  }
  return lines;
}

function main(words: readonly string[]): void {
  if (!words.includes('--check')) return console.log(picture());
  const tree = readTree(resolve(words.find((word) => !word.startsWith('-')) ?? '.'));
  const faults = faultsOfImports(tree);
  console.log(
    `${faults.length} imports that the table does not allow:\n  ${[...faultsOfTable(), ...faults].join('\n  ')}`,
  );
  console.log(
    `circles:\n  ${circles(tree)
      .map((circle) => circle.join(' '))
      .join('\n  ')}`,
  );
  console.log(`crowded:\n  ${crowdedFolders(tree).join('\n  ')}`);
  for (const [room, count, share] of shares(tree))
    console.log(`${(100 * share).toFixed(1).padStart(5)} %  ${count}  ${room}`);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) main(process.argv.slice(2));
