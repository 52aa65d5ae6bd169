/** `fusetap config`: prints the bus as disk lines of an xl domain configuration. */
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import { isFile, type NodeSpec, nodesOf, remoteUri, treeOf } from '../../drivers/graph.js';
import { showBus } from '../../mount/client/index.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { printXlSpec } from '../disk-spec/index.js';
import { placed } from '../listed-disk.js';
import { chosenBus, endHelp, type SharedOptions, withBus } from '../options.js';
import { print, printError, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('config')
    .summary('print the bus as xl disk lines')
    .description(
      'Prints each vbd of the bus as a disk line of xl. attach takes such a line as a SPEC, and all lines with ' +
        '--config. A line cannot carry filters (offset and size limit too), options, partitions and share names: an ' +
        'error on stderr says what is lost, and the exit status is 2. With --json, a disk of several drivers is an ' +
        'object, which carries all of it.',
    )
    .argument('[BUS]', 'the bus, instead of --bus')
    .action(async (word: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { vbds } = await showBus(await chosenBus(withBus(word, options)));
      printLines(vbds, options);
    });
  endHelp(command, ['fusetap config', 'fusetap config | fusetap attach --bus copy --config -']);
}

/** A vbd that no line can describe, or not completely, must not hide the others. */
function printLines(vbds: readonly VbdInfo[], options: SharedOptions): void {
  const lines: (string | object)[] = [];
  const report = (error: unknown, { vdev, bus }: VbdInfo): void => {
    process.exitCode = printError(placed(`${vdev} of bus ${bus}`, error), options.debug);
  };
  for (const vbd of [...vbds].sort((a, b) => a.slot - b.slot)) {
    try {
      if (options.json && vbd.disk !== undefined) {
        lines.push(objectOf(vbd));
        continue;
      }
      lines.push(lineOf(vbd));
      const lost = lostParts(vbd);
      if (lost.length > 0) report(incomplete(lost), vbd);
    } catch (error) {
      report(error, vbd);
    }
  }
  if (options.json) printJson(lines);
  else for (const line of lines) print(String(line));
}

/** @throws FusetapError USAGE */
function lineOf(vbd: VbdInfo): string {
  const { vdev, mode } = vbd;
  const image = vbd.image ?? remoteUri(vbd);
  const [driver, ...below] = stackOf(wishedTree(vbd));
  return printXlSpec({ driver, ...(below.length > 0 && { below }), image, vdev, mode, notes: [] });
}

function wishedTree({ driver, image, options = {}, disk }: VbdInfo): NodeSpec {
  return treeOf({ driver, image, options, disk });
}

/**
 * The drivers of a spec, the top first. Files that an image names are left out: they are found again.
 * @throws FusetapError USAGE if no spec can say the tree
 */
function stackOf({ driver, on }: NodeSpec): [string, ...string[]] {
  const { file } = on;
  if (file !== undefined) return isFile(file) ? [driver] : [driver, ...stackOf(file)];
  if (Object.keys(on).length === 0) return [driver];
  throw new FusetapError('USAGE', `a line of xl cannot say a disk of ${driver}, which has several images`, {
    hint: ALL,
  });
}

/** With a tree it is an object with the keys of an attach, because a line cannot carry all of it. */
function objectOf({ disk, vdev, mode, filters, raw, backing, sectorSize, partitions, share }: VbdInfo): object {
  const isNamed = share !== null && !share.includes(':');
  return {
    ...{ disk, vdev, mode },
    ...(filters !== undefined && filters.length > 0 && { filters }),
    ...defined({ raw, backing }),
    ...(sectorSize != null && { sectorSize }),
    ...(partitions !== null && { partitions: true }),
    ...(isNamed && { share }),
  };
}

/** What a line of xl cannot carry. */
function lostParts(vbd: VbdInfo): string[] {
  const { filters = [], raw, backing, sectorSize, partitions, share } = vbd;
  const options = [...nodesOf(wishedTree(vbd))].flatMap(([path, node]) =>
    Object.entries(node.options)
      .filter(([name]) => path !== '' || name !== 'uri' || remoteUri(vbd) === null)
      .map(([name, value]) => `--option ${path === '' ? name : `${path}/${name}`}=${value}`),
  );
  return [
    ...filters,
    ...options,
    ...(raw ? ['--raw'] : []),
    ...(backing === undefined ? [] : [`--backing ${backing}`]),
    ...(sectorSize == null ? [] : [`--sector-size ${sectorSize}`]),
    ...(partitions === null ? [] : ['--partitions']),
    // a share name with colons is the identity of the image, which every attach of it has
    ...(share === null || share.includes(':') ? [] : [`--share ${share}`]),
  ];
}

const ALL = 'fusetap ls --json prints all of it, and fusetap attach --config takes that';

function incomplete(lost: readonly string[]): FusetapError {
  return new FusetapError('USAGE', `a line of xl cannot carry ${lost.join(' ')}`, {
    hint: ALL,
  });
}
