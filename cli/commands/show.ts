/** `fusetap show`: shows one vbd, or the bus, in full. */
import type { Command } from 'commander';
import { quoted } from '../../drivers/quote.js';
import { showBus } from '../../mount/client/index.js';
import type { BusInfo, VbdInfo } from '../../mount/control/interface.js';
import { locateVbd } from '../locate-vbd.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { humanSize, printJson, printPairs } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('show')
    .summary('show all details of a vbd or of the bus')
    .description('Shows all details of a VBD, or of the bus if no VBD is given.')
    .argument('[VBD]', 'a vdev, a slot number, the path of the file or of its image')
    .action(async (word: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      if (word === undefined) show(await showBus(await chosenBus(options)), describeBus, options);
      else show((await locateVbd(word, options)).vbd, describeVbd, options);
    });
  endHelp(command, ['fusetap show', 'fusetap show xvda', "fusetap show xvda --json | jq -r '.path'"]);
}

type Pairs = [name: string, value: string][];

function show<Thing>(thing: Thing, describe: (thing: Thing) => Pairs, options: SharedOptions): void {
  if (options.json) printJson(thing);
  else printPairs(describe(thing));
}

function describeBus(bus: BusInfo): Pairs {
  return [
    ['bus', bus.bus],
    ['path', bus.path],
    ['state', bus.state],
    ['transport', bus.transport],
    ['interface', bus.interface],
    ...(bus.bookkeeping ? ([['not written', bus.bookkeeping]] satisfies Pairs) : []),
    ...describeProcesses(bus),
    ['vbds', bus.vbds.map(({ vdev }) => vdev).join(' ') || '-'],
  ];
}

function describeVbd(vbd: VbdInfo): Pairs {
  return [
    ['bus', vbd.bus],
    ['vdev', vbd.vdev],
    ['slot', String(vbd.slot)],
    ['path', vbd.path],
    ['driver', vbd.driver],
    ['image', `${vbd.image ?? '-'}${remarkOn(vbd)}`],
    ['mode', vbd.mode],
    ['size', `${vbd.size} (${humanSize(vbd.size)})`],
    ['state', vbd.state],
    ...describeBroken(vbd),
    ['opens', String(vbd.opens)],
    ['transport', `${vbd.transport}${vbd.passthrough ? ', passthrough' : ''}`],
    ['share', vbd.share ?? '-'],
    ['filters', vbd.filters?.join(' ') || '-'],
    ...describePartitions(vbd),
    ...describeProcesses(vbd),
  ];
}

function describeBroken({ broken }: VbdInfo): Pairs {
  return broken == null ? [] : [['broken', `I/O fails with EIO: ${broken}`]];
}

function remarkOn({ imageState, changedOutside }: VbdInfo): string {
  if (imageState === 'not-answering') return ' (its file system does not answer)';
  if (imageState === 'gone') return ' (it is gone: its file system answers with an error)';
  return changedOutside ? ' (changed by somebody else while attached)' : '';
}

function describePartitions({ partitions }: VbdInfo): Pairs {
  if (partitions?.length === 0) return [['partitions', 'none']];
  return (partitions ?? []).map(({ vdev, offset, size, type, typeName, name, mode }) => {
    const words = [`${vdev} at ${offset}`, `${size} (${humanSize(size)})`, typeName ?? type, name && quoted(name)];
    if (mode === 'r') words.push('read-only');
    return ['partition', words.filter((word) => word !== null).join(', ')];
  });
}

function describeProcesses({ keeperPid, serverPid, restarts }: Pick<BusInfo, 'keeperPid' | 'serverPid' | 'restarts'>) {
  const pairs: Pairs = [
    ['keeper', `${keeperPid ?? '-'}`],
    ['server', `${serverPid ?? '-'}`],
    ['restarts', String(restarts)],
  ];
  return pairs;
}
