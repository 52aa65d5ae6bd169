/** `fusetap ls`: lists what is attached, on all buses. */
import type { Command } from 'commander';
import { listBuses, showBus } from '../../mount/client/index.js';
import type { BusInfo, VbdInfo } from '../../mount/control/interface.js';
import { callersRuntimeDir, chosenBus, endHelp, type SharedOptions } from '../options.js';
import { type Column, humanSize, printError, printJson, printTable } from '../output.js';

const COLUMNS: readonly Column[] = [
  { head: 'BUS' },
  { head: 'VDEV' },
  { head: 'SLOT', align: 'right' },
  { head: 'DRIVER' },
  { head: 'MODE' },
  { head: 'SIZE', align: 'right' },
  { head: 'OPENS', align: 'right' },
  { head: 'STATE' },
  { head: 'IMAGE' },
];

export function register(program: Command): void {
  const command = program
    .command('ls')
    .summary('list what is attached')
    .description('Lists what is attached on all buses, or on the bus that --bus names.')
    .action(async (_: unknown, self: Command) => list(self.optsWithGlobals<SharedOptions>()));
  endHelp(command, ['fusetap ls', "fusetap ls --json | jq -r '.[].path'"]);
}

async function list(options: SharedOptions): Promise<void> {
  const buses = await find(options);
  const vbds = buses.flatMap((bus) => [...bus.vbds].sort((a, b) => a.slot - b.slot));
  if (options.json) printJson(vbds);
  else printTable(COLUMNS, vbds.flatMap(rows));
}

/** A dead bus is reported on stderr; the others are listed. */
async function find(options: SharedOptions): Promise<BusInfo[]> {
  if (options.bus !== undefined) return [await showBus(await chosenBus(options))];
  const { buses, troubles } = await listBuses(callersRuntimeDir());
  if (!options.quiet) for (const { error } of troubles) printError(error, options.debug);
  return buses;
}

/** A row for the vbd, then a row for each partition. */
function rows(vbd: VbdInfo): string[][] {
  const partitions = (vbd.partitions ?? []).map((partition) => row({ ...vbd, ...partition }));
  return [row(vbd), ...partitions];
}

function row(vbd: Omit<VbdInfo, 'partitions'>): string[] {
  const { bus, vdev, slot, driver, mode, size, opens, state, image } = vbd;
  return [bus, vdev, String(slot), driver, mode, humanSize(size), String(opens), state, image ?? '-'];
}
