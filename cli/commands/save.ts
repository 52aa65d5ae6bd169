/** `fusetap save`: copies a vbd to a file. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import { save } from '../../mount/client/index.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { print, printJson } from '../output.js';
import { withProgress } from '../progress-bar.js';

const STDOUT = 1;

type SaveOptions = SharedOptions & { force?: boolean };

export function register(program: Command): void {
  const command = program
    .command('save')
    .summary('copy a vbd to a file')
    .description(
      'Copies a VBD to FILE. The copy is sparse and consistent: programs that write to the VBD wait meanwhile. ' +
        'It is renamed to FILE when it is complete and durable. Prints the path of the copy. If FILE is -, the bytes are ' +
        'written to stdout, holes as zeros.',
    )
    .argument('<VBD>', VBD_HELP)
    .argument('<FILE>', 'a path, or - for stdout')
    .option('--force', 'replace FILE if it exists; it keeps its owner and mode')
    .action(async (word: string, file: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SaveOptions>();
      if (file === '-') return await saveToStdout(word, options);
      const { place, vbd: located } = await locateVbd(word, options);
      const target = { path: resolve(file), force: options.force ?? false };
      const result = await withProgress('saving', options, (progress) =>
        save(place, located.vdev, target, defined({ progress })),
      );
      if (options.json) printJson(result);
      else print(result.path);
    });
  endHelp(command, [
    'fusetap save xvda copy.img',
    'fusetap save --force golden.img golden.img',
    'fusetap save xvda - | gzip > copy.img.gz',
  ]);
}

/** @throws FusetapError USAGE if stdout cannot take the bytes of a disk */
async function saveToStdout(word: string, options: SaveOptions): Promise<void> {
  if (options.json) {
    throw new FusetapError('USAGE', 'with --json, stdout has a document and not the copy', { hint: 'omit --json' });
  }
  if (process.stdout.isTTY) {
    throw new FusetapError('USAGE', 'stdout is a terminal: the bytes of a disk are not for people', {
      hint: 'redirect stdout to a file or a pipe',
    });
  }
  const { place, vbd } = await locateVbd(word, options);
  const { saveToFd } = await import('../save/save-to-fd.js');
  await withProgress('saving', options, (progress) => saveToFd(place, vbd.vdev, STDOUT, defined({ progress })));
}
