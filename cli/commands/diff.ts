/** `fusetap diff`: lists what was written to a snapshot. */
import type { Command } from 'commander';
import { type Change, changes } from '../../mount/client/ranges/changes.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { humanSize, print, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('diff')
    .summary('list what was written to a snapshot')
    .description(
      'Lists the ranges in which a VBD that was attached with --snapshot differs from its image: a line OFFSET LENGTH ' +
        'data, or zeros, for each, in bytes, and the sum in the last line. A range that was written with the bytes that ' +
        'it had counts too. If programs write meanwhile, pause the vbd first. To keep the changes: fusetap save VBD FILE.',
    )
    .argument('<VBD>', VBD_HELP)
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SharedOptions>();
      const { place, vbd } = await locateVbd(word, options);
      const found = changes(place, vbd.vdev);
      if (options.json) await printDocument(found, vbd);
      else await printLines(found);
    });
  endHelp(command, ['fusetap diff xvda', "fusetap diff --json disk.img | jq '.dataBytes'"]);
}

/** How many bytes differ. */
class Sum {
  dataBytes = 0;
  zerosBytes = 0;

  add({ kind, length }: Change): void {
    if (kind === 'data') this.dataBytes += length;
    else this.zerosBytes += length;
  }
}

async function printLines(found: AsyncIterable<Change>): Promise<void> {
  const sum = new Sum();
  for await (const change of found) {
    print(`${change.offset} ${change.length} ${change.kind}`);
    sum.add(change);
  }
  const { dataBytes, zerosBytes } = sum;
  const total = dataBytes + zerosBytes;
  print(`total ${total} (${humanSize(total)}): ${dataBytes} data, ${zerosBytes} zeros`);
}

async function printDocument(found: AsyncIterable<Change>, { bus, vdev, size }: ShownVbd): Promise<void> {
  const sum = new Sum();
  const all: Change[] = [];
  for await (const change of found) {
    all.push(change);
    sum.add(change);
  }
  printJson({ bus, vdev, size, ...sum, changes: all });
}

interface ShownVbd {
  readonly bus: string;
  readonly vdev: string;
  readonly size: number;
}
