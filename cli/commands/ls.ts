/** `fusetap ls`: lists what is attached, on all buses; or the buses themselves. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { remoteUri } from '../../drivers/graph.js';
import { quoted } from '../../drivers/quote.js';
import { readTables, type VbdAbove, withAbove } from '../../mount/client/finding/above.js';
import { vbdsAt } from '../../mount/client/finding/locate-vbd.js';
import { type BusListing, type BusTrouble, listBuses, showBus } from '../../mount/client/index.js';
import type { BusInfo } from '../../mount/control/interface.js';
import { callersRuntimeDir, chosenBus, endHelp, type SharedOptions } from '../options.js';
import {
  type Column,
  exitStatus,
  humanSize,
  jsonError,
  printError,
  printJson,
  printNote,
  printTable,
} from '../output.js';

interface LsOptions extends SharedOptions {
  buses?: boolean;
  fs?: boolean;
}

const VBD_COLUMNS: readonly Column[] = [
  { head: 'BUS' },
  { head: 'VDEV' },
  { head: 'SLOT', align: 'right' },
  { head: 'DRIVER' },
  { head: 'MODE' },
  { head: 'SIZE', align: 'right' },
  { head: 'OPENS', align: 'right' },
  { head: 'STATE' },
  { head: 'IMAGE' },
  { head: 'MOUNTED' },
];

const BUS_COLUMNS: readonly Column[] = [
  { head: 'BUS' },
  { head: 'STATE' },
  { head: 'VBDS', align: 'right' },
  { head: 'TRANSPORT' },
  { head: 'KEEPER', align: 'right' },
  { head: 'SERVER', align: 'right' },
  { head: 'VERSION' },
  { head: 'PATH' },
  { head: 'UNIT' },
];

export function register(program: Command): void {
  const command = program
    .command('ls')
    .summary('list what is attached')
    .description(
      'Lists what is attached on all buses, or on the bus that --bus names; with PATH, only the vbds of this image, ' +
        'of the images in this directory, or mounted on it. The exit status is 1 if a bus is dead or does not answer: ' +
        'the list is incomplete then.',
    )
    .argument('[PATH...]', 'an image, a directory, a loop device, a bus, or a vdev')
    .option('--buses', 'list the buses, also dead ones and those without vbds')
    .option('--fs', 'list what the vbds and partitions hold: type, label, UUID, and where they are mounted')
    .action(async (words: string[], _: unknown, self: Command) => {
      const options = self.optsWithGlobals<LsOptions>();
      if (options.buses && options.fs) {
        throw new FusetapError('USAGE', '--buses and --fs contradict each other', { hint: 'give one of them' });
      }
      if (options.buses) await printBuses(words, options);
      else await printVbds(words, options);
    });
  endHelp(command, [
    'fusetap ls',
    'fusetap ls disk.img',
    "fusetap ls --json | jq -r '.[].path'",
    'fusetap ls --fs',
    'fusetap ls --buses',
  ]);
}

async function find(options: SharedOptions): Promise<BusListing> {
  if (options.bus === undefined) return await listBuses(callersRuntimeDir());
  return { buses: [await showBus(await chosenBus(options))], troubles: [] };
}

async function printVbds(words: readonly string[], options: LsOptions): Promise<void> {
  const listing = await find(options);
  const tables = await readTables();
  const wanted = words.length === 0 ? null : await choose(words, listing, tables);
  const isWanted = ({ bus, vdev }: VbdAbove): boolean =>
    wanted === null || wanted.some((vbd) => vbd.bus === bus && vbd.vdev === vdev);
  const lists = listing.buses.map((bus) => ({
    bus: bus.bus,
    vbds: [...bus.vbds]
      .sort((a, b) => a.slot - b.slot)
      .map((vbd) => withAbove(vbd, tables))
      .filter(isWanted),
  }));
  if (options.fs) await printFileSystems(lists, tables, options);
  else if (options.json) printJson(lists.flatMap(({ vbds }) => vbds));
  else printTable(VBD_COLUMNS, rowsOf(lists, wanted === null ? listing.troubles : null));
  for (const { error } of listing.troubles) {
    if (!options.quiet) printError(error, options.debug);
    process.exitCode = exitStatus('FAILED');
  }
}

async function printFileSystems(
  lists: readonly { bus: string; vbds: VbdAbove[] }[],
  tables: Awaited<ReturnType<typeof readTables>>,
  options: LsOptions,
): Promise<void> {
  const { nameRows, namesOfBuses, printNames, remarksOnNames } = await import('../show/names.js');
  const names = await namesOfBuses(lists.map(({ bus }) => bus));
  const rows = lists.flatMap(({ vbds }) => nameRows(vbds, names, tables));
  if (options.json) printJson(rows);
  else printNames(rows);
  if (!options.quiet && !options.json) remarksOnNames(names).forEach(printNote);
  for (const error of names.errors) {
    if (!options.quiet) printError(error, options.debug);
    process.exitCode = exitStatus('FAILED');
  }
}

/** @throws FusetapError NOT_FOUND for a path where nothing is, unless a bus that cannot be listed may have it */
async function choose(
  words: readonly string[],
  { buses, troubles }: BusListing,
  tables: Awaited<ReturnType<typeof readTables>>,
): Promise<{ bus: string; vdev: string }[]> {
  const found = await Promise.all(
    words.map(async (word) => {
      const vbds = await vbdsAt(word, buses, tables);
      if (vbds !== null || troubles.length > 0) return vbds ?? [];
      throw new FusetapError('NOT_FOUND', `no such image, directory or vbd: ${quoted(word)}`, {
        hint: 'fusetap ls without a PATH lists all',
      });
    }),
  );
  return found.flat();
}

/**
 * The rows of the vbds, by bus; a bus without vbds, or one that cannot be listed, has a row of its own.
 * @param troubles null: only vbds are wanted
 */
function rowsOf(
  lists: readonly { bus: string; vbds: VbdAbove[] }[],
  troubles: readonly BusTrouble[] | null,
): string[][] {
  const ofBuses = lists.map(({ bus, vbds }) => {
    const none = vbds.length === 0 && troubles !== null;
    return { bus, rows: none ? [busRow(bus, 'no vbds')] : vbds.flatMap(vbdRows) };
  });
  const ofTroubles = (troubles ?? []).map(({ bus, state }) => ({ bus, rows: [busRow(bus, wordOf(state))] }));
  return [...ofBuses, ...ofTroubles].sort((a, b) => (a.bus < b.bus ? -1 : 1)).flatMap(({ rows }) => rows);
}

const wordOf = (state: BusTrouble['state']): string => state.replace('-', ' ');

function busRow(bus: string, state: string): string[] {
  return [bus, ...Array<string>(6).fill('-'), state, '-'];
}

/** A row for the vbd, then a row for each partition. */
function vbdRows(vbd: VbdAbove): string[][] {
  const ofPartitions = new Set((vbd.partitions ?? []).flatMap(({ mounts }) => mounts));
  const own = vbd.mounts.filter((directory) => !ofPartitions.has(directory));
  const partitions = (vbd.partitions ?? []).map((partition) => vbdRow({ ...vbd, ...partition }));
  return [vbdRow({ ...vbd, mounts: own }), ...partitions];
}

function vbdRow(vbd: Omit<VbdAbove, 'partitions'>): string[] {
  const { bus, vdev, slot, driver, mode, size, opens, state, image, mounts } = vbd;
  const numbers = [humanSize(size), String(opens)];
  const shown = image ?? remoteUri(vbd) ?? '-';
  return [bus, vdev, String(slot), shortDriver(driver), mode, ...numbers, state, shown, mounts.join(' ')];
}

/** A driver of others is a path: the name of its package, else of its file. */
function shortDriver(driver: string): string {
  const [, name] = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(driver) ?? [];
  return name ?? (driver.includes('/') ? (/([^/]+\/index|[^/]+)\.[cm]?js$/.exec(driver)?.[1] ?? driver) : driver);
}

async function printBuses(words: readonly string[], options: SharedOptions): Promise<void> {
  if (words.length > 0) {
    throw new FusetapError('USAGE', `--buses and ${words.join(' ')} contradict each other`, {
      hint: 'give one of them; --bus names one bus',
    });
  }
  const { buses, troubles } = await find(options);
  const tables = await readTables();
  const ofBuses = buses.map((bus) => ({
    bus: bus.bus,
    row: rowOfBus(bus),
    json: { ...bus, vbds: bus.vbds.map((vbd) => withAbove(vbd, tables)), error: null },
  }));
  const ofTroubles = troubles.map((trouble) => ({
    bus: trouble.bus,
    row: [trouble.bus, wordOf(trouble.state), '-', '-', '-', '-', '-', trouble.path ?? '-', '-'],
    json: jsonOfTrouble(trouble),
  }));
  const all = [...ofBuses, ...ofTroubles].sort((a, b) => (a.bus < b.bus ? -1 : 1));
  if (options.json) return printJson(all.map(({ json }) => json));
  printTable(
    BUS_COLUMNS,
    all.map(({ row }) => row),
  );
  if (!options.quiet) for (const { error } of troubles) printError(error, options.debug);
}

function rowOfBus({ bus, state, vbds, transport, keeperPid, serverPid, version, path, unit }: BusInfo): string[] {
  const pids = [keeperPid, serverPid].map((pid) => String(pid ?? '-'));
  return [bus, state, String(vbds.length), transport, ...pids, version?.server ?? '-', path, unit ?? '-'];
}

/** The keys of a bus; those that nobody can tell are null. */
function jsonOfTrouble({ bus, path, state, error }: BusTrouble): unknown {
  const unknown = { transport: null, allowOther: null, keeperPid: null, serverPid: null, restarts: null };
  const late = { bookkeeping: null, unit: null, interface: null, version: null };
  return { bus, path, ...unknown, state, ...late, vbds: [], error: jsonError(error) };
}
