/** `fusetap mount`: attaches an image and mounts its file system. */

import { type Command, InvalidArgumentError } from 'commander';
import { defined } from '../../drivers/defined.js';
import { type BusPlace, resolveBus } from '../../mount/client/index.js';
import { busOfDirectory, mountImage } from '../../mount/file-system/index.js';
import { attachRequest } from '../attach-request.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { printJson, printNote, sayIfUnprinted, tellWaits } from '../output.js';
import { withProgress } from '../progress-bar.js';

interface MountOptions extends SharedOptions {
  readOnly?: boolean;
  partition?: number;
  type?: string;
  options?: string;
}

export function register(program: Command): void {
  const command = program
    .command('mount')
    .summary('mount the file system of an image')
    .description(
      'Attaches an image, to a new bus unless --bus names one, and mounts its file system on DIR. Root mounts ' +
        'it through a loop device. Other users, and root without loop devices, mount it with fuse2fs (ext2 to ' +
        'ext4) or squashfuse. If a step fails, the steps before it are undone.',
    )
    .argument('<SPEC>', 'DRIVER:PATH, PATH, or any other SPEC of attach; mode r mounts it read-only')
    .argument('<DIR>', 'an existing directory')
    .option('-r, --read-only', 'the same as mode r in SPEC, and as -o ro')
    .option('--partition <N>', 'partition N of the image (MBR or GPT)', parseNumber)
    .option('-t, --type <TYPE>', 'the type of the file system (default: detected)')
    .option('-o, --options <OPTIONS>', 'options of mount(8) or of the FUSE program, separated by commas')
    .action(async (spec: string, directory: string, _: unknown, self: Command) => {
      await run(spec, directory, self.optsWithGlobals<MountOptions>());
    });
  endHelp(command, [
    'fusetap mount disk.img /mnt',
    'fusetap mount ram:golden.img /mnt --partition 2',
    'fusetap mount --read-only -t ext4 -o noload disk.img /mnt',
  ]);
}

function parseNumber(word: string): number {
  if (/^[1-9]\d{0,2}$/.test(word)) return Number(word);
  throw new InvalidArgumentError('give the number of a partition, 1 or more');
}

async function run(spec: string, directory: string, options: MountOptions): Promise<void> {
  const words = (options.options ?? '').split(',').filter((word) => word !== '');
  const readOnly = options.readOnly || words.includes('ro');
  const { request, notes } = attachRequest([spec], defined({ readOnly }));
  if (options.verbose) notes.forEach(printNote);
  const place = await chooseBus(directory, options);
  const wanted = {
    attach: request,
    directory,
    partition: options.partition ?? null,
    type: options.type ?? null,
    options: words.filter((word) => word !== 'ro'),
  };
  const mounted = await withProgress('copying', options, (progress) =>
    mountImage(place, wanted, { ...defined({ progress }), ...tellWaits(options) }),
  );
  const { notes: remarks = [], ...vbd } = mounted.vbd;
  if (!options.quiet) remarks.forEach(printNote);
  sayIfUnprinted(`it is mounted; to undo this: fusetap umount ${mounted.directory}`);
  if (options.json) printJson({ directory: mounted.directory, device: mounted.device, vbd });
}

function chooseBus(directory: string, { bus }: MountOptions): Promise<BusPlace> {
  const runtime = callersRuntimeDir();
  return bus === undefined ? busOfDirectory(directory, runtime) : resolveBus(bus, runtime);
}
