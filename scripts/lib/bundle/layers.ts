/**
 * Which modules share a file of the built programs. To load a file costs Node as much as to compile 100 kB, so a program
 * should consist of few files, also if it does not need all that is in them.
 *
 * The layers are filled from the first to the last: a module goes to the first layer that claims it. What a layer
 * claims contains all that its modules import, so a layer imports earlier layers only. What no layer claims is left to
 * the bundler: code of one program becomes part of its entry, the rest is loaded when it is needed.
 */

/** The modules of the programs, and what each of them imports at once. */
export type Graph = ReadonlyMap<string, readonly string[]>;

interface Layer {
  /** claims what all of these start points need */
  readonly sharedBy: readonly (readonly string[])[];
}

/** what reads images without a bus, and drivers whose code is loaded when a disk needs it */
const READERS = [
  ...['test/conformance/index', 'mount/open-disk', 'mount/export/main'],
  ...['create-image', 'check-image', 'describe-image', 'mapped-image'].map((name) => `mount/offline/${name}`),
  ...['concat', 'nbd', 'qcow2', 'ram', 'snapshot', 'split', 'sync', 'tar', 'vdi', 'vhd', 'vhdx', 'vmdk'].map(
    (name) => `drivers/${name}/index`,
  ),
];
/** commands that use the parts of a keeper */
const MOUNTERS = [
  ...['mount/file-system/index', 'mount/tap/index', 'mount/doctor/index', 'mount/client/ram'],
  ...['mount/fuse/mounting/dead-mounts', 'mount/runtime/bus-owner'],
];
const SERVER = ['mount/server/serve', 'drivers/aio/index'];
const KEEPER = ['mount/keeper/run-bus'];
const CONTROL = ['mount/control/http-server', 'mount/control/open-metrics'];
/** a server whose keeper died */
const ORPHAN = ['mount/server/orphan'];
/** the library, and the commands that are used most */
const CLIENTS = [
  ...['mount/index', 'mount/client/on-running-bus', 'mount/client/begin-bus', 'cli/main'],
  ...['ls', 'attach', 'detach', 'show', 'run', 'start', 'stop'].map((name) => `cli/commands/${name}`),
];

export const LAYERS: Readonly<Record<string, Layer>> = {
  // errors and words, in every process
  base: { sharedBy: [['mount/fuse/thread/thread'], CLIENTS] },
  // what clients and buses have in common: it must not load the C library, which most commands do not need
  client: { sharedBy: [CLIENTS, [...KEEPER, ...SERVER, ...CONTROL, ...ORPHAN]] },
  library: { sharedBy: [['mount/index', 'mount/client/on-running-bus']] },
  cli: { sharedBy: [['cli/main', 'cli/commands/ls']] },
  commands: { sharedBy: [CLIENTS] },
  // starts the first thread of a server: before native code is loaded
  threads: { sharedBy: [['mount/fuse/event-loop/begin-threads']] },
  native: { sharedBy: [['mount/fuse/thread/thread']] },
  mounting: { sharedBy: [['mount/keeper/main']] },
  bus: { sharedBy: [KEEPER, SERVER] },
  disks: { sharedBy: [SERVER, READERS] },
  // answers requests: in the keeper, or in a server without one
  control: { sharedBy: [CONTROL] },
  orphan: { sharedBy: [KEEPER, ORPHAN] },
  images: { sharedBy: [KEEPER, [...READERS, ...MOUNTERS]] },
  server: { sharedBy: [SERVER] },
};

/** they do something when they are loaded, so they do not share a file */
const ACTIVE = ['mount/runtime/own-process', 'mount/server/beginning', 'mount/server/serve'];

/** @returns the layer of each module that belongs to one; the names of modules have no extension */
export function layersOf(graph: Graph, layers: Readonly<Record<string, Layer>> = LAYERS): Map<string, string> {
  const chosen = new Map<string, string>();
  for (const [name, { sharedBy }] of Object.entries(layers)) {
    const [first = new Set<string>(), ...others] = sharedBy.map((starts) => reachable(graph, starts));
    for (const module of first) {
      if (!chosen.has(module) && others.every((other) => other.has(module))) chosen.set(module, name);
    }
  }
  for (const module of ACTIVE) chosen.delete(module);
  return chosen;
}

/** All that is loaded with these modules. @throws RangeError for a module that does not exist */
function reachable(graph: Graph, starts: readonly string[]): Set<string> {
  const found = new Set(starts);
  for (const module of found) {
    const imports = graph.get(module);
    if (imports === undefined) throw new RangeError(`no such module: ${module}`);
    for (const imported of imports) found.add(imported);
  }
  return found;
}
