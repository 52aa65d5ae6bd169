/** `fusetap save`: copies a vbd to a file, or to another disk. */

import { resolve } from 'node:path';
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import { driverNames } from '../../drivers/names.js';
import type { LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import { type CopyOptions, save, saveToDisk } from '../../mount/client/index.js';
import type { DiskWish } from '../../mount/control/interface.js';
import { attachOption } from '../attach-options.js';
import { type AttachWords, placelessDisk } from '../attach-request.js';
import { namesDriver } from '../disk-spec/index.js';
import { locateVbd } from '../locate-vbd.js';
import { endHelp, type SharedOptions, VBD_HELP } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { withProgress } from '../progress-bar.js';

const STDOUT = 1;

type SaveOptions = SharedOptions & Pick<AttachWords, 'option' | 'backing'> & { force?: boolean };

export function register(program: Command): void {
  const command = program
    .command('save')
    .summary('copy a vbd to a file, or to another disk')
    .description(
      'Copies a VBD to a file. The copy is sparse and consistent: programs that write to the VBD wait meanwhile. ' +
        'It is renamed to FILE when it is complete and durable. Prints the path of the copy. If FILE is -, the bytes are ' +
        'written to stdout, holes as zeros. A SPEC that names a driver, as DRIVER:PATH or a URI, is a disk of the same ' +
        'size that becomes the copy: make it before (fusetap create).',
    )
    .argument('<VBD>', VBD_HELP)
    .argument('<FILE|SPEC>', 'a path, - for stdout, or a disk')
    .option('--force', 'replace FILE if it exists (it keeps its owner and mode), or the data on the disk')
    .addOption(attachOption('option'))
    .addOption(attachOption('backing'))
    .action(async (word: string, target: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<SaveOptions>();
      if (target === '-') return await saveToStdout(word, options);
      const isDisk = namesDriver(target, driverNames);
      if (!isDisk) refuseDiskOptions(options);
      const to = isDisk ? diskOf(target, options) : resolve(target);
      const { place, vbd } = await locateVbd(word, options);
      const result = await withProgress('saving', options, (progress) =>
        saveAs({ place, vbd }, to, options.force ?? false, defined({ progress })),
      );
      if (options.json) printJson(result);
      else print(result.path ?? target);
    });
  endHelp(command, [
    'fusetap save xvda copy.img',
    'fusetap save --force golden.img golden.img',
    'fusetap save xvda - | gzip > copy.img.gz',
    'fusetap save xvda qcow2:copy.qcow2',
  ]);
}

function saveAs(
  { place, vbd }: Pick<LocatedVbd, 'place' | 'vbd'>,
  to: string | DiskWish,
  force: boolean,
  options: CopyOptions,
) {
  if (typeof to === 'string') return save(place, vbd.vdev, { path: to, force }, options);
  return saveToDisk(place, vbd.vdev, { to, force }, options);
}

/** @throws FusetapError USAGE */
function refuseDiskOptions({ option, backing }: SaveOptions): void {
  if (option === undefined && backing === undefined) return;
  throw new FusetapError('USAGE', `${option === undefined ? '--backing' : '--option'} is for a disk, not for a file`, {
    hint: 'name its driver: DRIVER:PATH',
  });
}

/** @throws FusetapError USAGE, also if the SPEC has more than drivers and image */
function diskOf(spec: string, { option, backing, verbose }: SaveOptions): DiskWish {
  const why = { message: 'a copy has no place on the bus', hint: 'give only DRIVER:PATH, or the URI' };
  const { disk, notes } = placelessDisk(spec, defined({ option, backing }), why);
  if (verbose) notes.forEach(printNote);
  return disk;
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
