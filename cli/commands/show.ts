/** `fusetap show`: shows one vbd, or the bus, in full. */
import type { Command } from 'commander';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { remoteUri } from '../../drivers/graph.js';
import { escapeControls, quoted } from '../../drivers/quote.js';
import { readTables, type VbdAbove, withAbove } from '../../mount/client/finding/above.js';
import type { LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import { findUsers, seeBus, type Users } from '../../mount/client/finding/users.js';
import { describeHolders, showBus } from '../../mount/client/index.js';
import type { BusInfo, BusVersion, VbdInfo } from '../../mount/control/interface.js';
import { vbdFinder } from '../locate-vbd.js';
import { chosenBus, endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { humanSize, print, printJson, printNote, printPairs } from '../output.js';
import { busTree } from '../show/bus-tree.js';
import { diskLines } from '../show/disk-lines.js';
import { drawTree, linesFor } from '../show/tree.js';

interface ShowOptions extends SharedOptions {
  tree?: boolean;
}

/** A vbd with its users; null if they cannot be found. */
type ShownVbd = VbdAbove & { readonly holders: Holder[] | null };

export function register(program: Command): void {
  const command = program
    .command('show')
    .summary('show all details of a vbd or of the bus')
    .description(
      'Shows all details of a VBD and who uses it, or all details of the bus if no VBD is given. With --tree: the ' +
        'processes of the bus, its vbds and partitions, the loop devices and mounts above them, and their users.',
    )
    .argument('[VBD]', VBD_HELP)
    .option('--tree', 'draw the bus, or the VBD, as a tree')
    .action(async (word: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<ShowOptions>();
      if (options.tree && options.json) {
        throw new FusetapError('USAGE', '--tree and --json contradict each other', { hint: 'give one of them' });
      }
      if (word === undefined) await showWholeBus(options);
      else await showOneVbd(await (await vbdFinder(options)).findAny(word), options);
    });
  endHelp(command, [
    'fusetap show',
    'fusetap show --tree',
    'fusetap show xvda',
    "fusetap show disk.img --json | jq '.holders'",
  ]);
}

async function showWholeBus(options: ShowOptions): Promise<void> {
  const place = await chosenBus(options);
  const bus = await showBus(place);
  const tables = await readTables();
  const vbds = bus.vbds.map((vbd) => withAbove(vbd, tables));
  if (options.json) return printJson({ ...bus, vbds });
  if (options.tree) printTree(bus, vbds, await findUsers(bus, bus.vbds, place.runtimeDir));
  else printPairs(describeBus(bus));
  await sayIfElsewhere(bus, options);
}

async function showOneVbd({ place, vbd }: LocatedVbd, options: ShowOptions): Promise<void> {
  const above = withAbove(vbd, await readTables());
  const [users, names] = await Promise.all([
    findUsers(place, [vbd], place.runtimeDir),
    options.tree || options.json ? [] : describeNames(vbd),
  ]);
  if (options.tree) printTree(await showBus(place), [above], users);
  else if (options.json) printJson({ ...above, holders: allHolders(users) });
  else printPairs([...describeVbd({ ...above, holders: allHolders(users) }), ...names]);
  await sayIfElsewhere(place, options);
}

/** a disk that hangs must not delay what is known */
const NAMES_LIMIT_MS = 1_000;

/** What it holds. A bus that does not tell is no trouble here: everything else is known. */
async function describeNames({ bus, path, partitions }: VbdInfo): Promise<Pairs> {
  const { nameLines, namesOfBuses } = await import('../show/names.js');
  return nameLines(
    [path, ...(partitions ?? []).map((partition) => partition.path)],
    await namesOfBuses([bus], NAMES_LIMIT_MS),
  );
}

/** The users of a vbd and of its partitions; null if they are not known. */
function allHolders(users: Users): Holder[] | null {
  const all = [...users.values()];
  return all.includes(null) ? null : all.flatMap((holders) => holders ?? []);
}

function printTree(bus: BusInfo, vbds: readonly VbdAbove[], users: Users): void {
  for (const line of drawTree(busTree(bus, vbds, users), linesFor(process.env))) print(escapeControls(line));
}

/** A bus of another mount namespace is served and listed as usual, but its files are not to be found here. */
async function sayIfElsewhere({ path }: { readonly path: string }, { quiet }: SharedOptions): Promise<void> {
  const seen = quiet ? null : await seeBus(path);
  if (seen === null || seen.elsewhere === null) return;
  printNote(`${path} is mounted in the mount namespace of pid ${seen.elsewhere}, not in this one`);
}

type Pairs = [name: string, value: string][];

function describeBus(bus: BusInfo): Pairs {
  return [
    ['bus', bus.bus],
    ['path', bus.path],
    ['state', bus.state],
    ['transport', bus.transport],
    ['interface', bus.interface],
    ...(bus.unit ? ([['unit', bus.unit]] satisfies Pairs) : []),
    ...(bus.bookkeeping ? ([['not written', bus.bookkeeping]] satisfies Pairs) : []),
    ...describeProcesses(bus),
    ['vbds', bus.vbds.map(({ vdev }) => vdev).join(' ') || '-'],
  ];
}

function describeVbd(vbd: ShownVbd): Pairs {
  return [
    ['bus', vbd.bus],
    ['vdev', vbd.vdev],
    ['slot', String(vbd.slot)],
    ['path', vbd.path],
    ['driver', vbd.driver],
    ['image', `${vbd.image ?? remoteUri(vbd) ?? '-'}${remarkOn(vbd)}`],
    ...(vbd.disk === undefined ? [] : diskLines(vbd.disk)).map((line): Pairs[number] => ['disk', line]),
    ...(vbd.backing === undefined ? [] : ([['backing', vbd.backing]] satisfies Pairs)),
    ['mode', vbd.mode],
    ['size', `${vbd.size} (${humanSize(vbd.size)})`],
    ['state', vbd.state],
    ...describeConnection(vbd),
    ...describeBroken(vbd),
    ['opens', String(vbd.opens)],
    ...vbd.mounts.map((directory): Pairs[number] => ['mounted', directory]),
    ...describeUsers(vbd.holders),
    ['transport', `${vbd.transport}${vbd.passthrough ? ', passthrough' : ''}`],
    ['share', vbd.share ?? '-'],
    ['filters', vbd.filters?.join(' ') || '-'],
    ...describePartitions(vbd),
    ...describeProcesses(vbd),
  ];
}

function describeUsers(holders: readonly Holder[] | null): Pairs {
  if (holders === null) return [['used by', 'not known: the files of the bus do not answer']];
  // keeper and server of a bus that uses it have the same text
  const texts = [...new Set(holders.map((holder) => describeHolders([holder])))];
  return texts.length === 0 ? [['used by', '-']] : texts.map((text) => ['used by', text]);
}

function describeConnection({ reconnecting }: VbdInfo): Pairs {
  return reconnecting == null ? [] : [['reconnecting', `since ${reconnecting.since}: ${reconnecting.reason}`]];
}

function describeBroken({ broken }: VbdInfo): Pairs {
  return broken == null ? [] : [['broken', `I/O fails with EIO: ${broken}`]];
}

function remarkOn({ imageState, changedOutside, writtenOutside, movedTo, deleted }: ShownVbd): string {
  if (imageState === 'not-answering') return ' (its file system does not answer)';
  if (imageState === 'gone') return ' (it is gone: its file system answers with an error)';
  if (deleted) return ' (deleted: the detach loses its data; fusetap save copies it)';
  const remarks = [
    ...(movedTo == null ? [] : [`moved to ${movedTo}`]),
    ...((movedTo == null ? changedOutside : writtenOutside) ? ['changed by somebody else while attached'] : []),
  ];
  return remarks.length === 0 ? '' : ` (${remarks.join('; ')})`;
}

function describePartitions({ partitions }: Pick<VbdAbove, 'partitions'>): Pairs {
  if (partitions?.length === 0) return [['partitions', 'none']];
  return (partitions ?? []).map(({ vdev, offset, size, type, typeName, name, mode }) => {
    const words = [`${vdev} at ${offset}`, `${size} (${humanSize(size)})`, typeName ?? type, name && quoted(name)];
    if (mode === 'r') words.push('read-only');
    return ['partition', words.filter((word) => word !== null).join(', ')];
  });
}

type Processes = Pick<BusInfo, 'keeperPid' | 'serverPid' | 'restarts' | 'version'>;

function describeProcesses({ keeperPid, serverPid, restarts, version }: Processes): Pairs {
  return [
    ['keeper', describeProcess(keeperPid, version, 'keeper')],
    ['server', describeProcess(serverPid, version, 'server')],
    ['restarts', String(restarts)],
  ];
}

function describeProcess(pid: number | null, version: BusVersion | undefined, name: keyof BusVersion): string {
  if (pid === null) return '-';
  return version?.[name] == null ? String(pid) : `${pid}, version ${version[name]}`;
}
