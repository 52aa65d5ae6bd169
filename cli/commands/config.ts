/** `fusetap config`: prints the bus as disk lines of an xl domain configuration. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
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
        'error on stderr says what is lost, and the exit status is 2.',
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
  const lines: string[] = [];
  const report = (error: unknown, { vdev, bus }: VbdInfo): void => {
    process.exitCode = printError(placed(`${vdev} of bus ${bus}`, error), options.debug);
  };
  for (const vbd of [...vbds].sort((a, b) => a.slot - b.slot)) {
    const { driver, image, vdev, mode } = vbd;
    try {
      lines.push(printXlSpec({ driver, image, vdev, mode, notes: [] }));
      const lost = lostParts(vbd);
      if (lost.length > 0) report(incomplete(lost), vbd);
    } catch (error) {
      report(error, vbd);
    }
  }
  if (options.json) printJson(lines);
  else lines.forEach(print);
}

/** What a line of xl cannot carry. */
function lostParts({ filters = [], options = {}, raw, sectorSize, partitions, share }: VbdInfo): string[] {
  return [
    ...filters,
    ...Object.entries(options).map(([name, value]) => `--option ${name}=${value}`),
    ...(raw ? ['--raw'] : []),
    ...(sectorSize == null ? [] : [`--sector-size ${sectorSize}`]),
    ...(partitions === null ? [] : ['--partitions']),
    // a share name with colons is the identity of the image, which every attach of it has
    ...(share === null || share.includes(':') ? [] : [`--share ${share}`]),
  ];
}

function incomplete(lost: readonly string[]): FusetapError {
  return new FusetapError('USAGE', `a line of xl cannot carry ${lost.join(' ')}`, {
    hint: 'fusetap ls --json prints all of it, and fusetap attach --config takes that',
  });
}
