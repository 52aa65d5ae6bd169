/** `fusetap mount`: attaches an image and mounts its file system. */

import { statSync } from 'node:fs';
import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import { type BusPlace, resolveBus } from '../../mount/client/index.js';
import { type MountedImage, type MountRequest, mountImage } from '../../mount/file-system/index.js';
import { attachOption } from '../attach-options.js';
import { type AttachWords, attachRequest } from '../attach-request.js';
import { type MountWords, parseMountWords } from '../disk-spec/index.js';
import { pathOfTag } from '../locate-vbd.js';
import { callersRuntimeDir, endHelp, type SharedOptions } from '../options.js';
import { printJson, printNote, sayIfUnprinted, tellWaits } from '../output.js';
import { withProgress } from '../progress-bar.js';

/** The options of attach that mount has too. */
type OfAttach = Pick<
  AttachWords,
  | ('readOnly' | 'driver' | 'image' | 'option' | 'offset' | 'sizelimit' | 'share' | 'sectorSize')
  | ('snapshot' | 'backing')
>;

interface MountOptions extends SharedOptions, OfAttach {
  partition?: string;
  partitions?: boolean;
  type?: string;
  options?: string;
}

/** the bus of all mounts of a user: many mounts need only two processes */
const BUS_OF_MOUNTS = 'mounts';

export function register(program: Command): void {
  const command = program
    .command('mount')
    .summary('mount the file system of an image')
    .description(
      'Attaches an image, to the bus "mounts" unless --bus names another one, and mounts its file system on DIR. ' +
        'If the image is attached already, its vbd is used, so several partitions of one image can be mounted. ' +
        'Without --partition, it mounts the only partition that has a file system. Root mounts through a loop ' +
        'device. Other users, and root without loop devices, mount with a FUSE program, for example fuse2fs. ' +
        'The image is detached when its last file system is unmounted, by fusetap umount or by umount(8). ' +
        'With --snapshot it always attaches the image anew: what is written is lost at the unmount. ' +
        'If a step fails, the steps before it are undone.',
    )
    .argument('[SPEC]', 'DRIVER:PATH, PATH, or any other SPEC of attach; or the path of a vbd, LABEL=, UUID= …')
    .argument('[DIR]', 'an existing directory')
    .option('-r, --read-only', 'the same as mode r in SPEC, and as -o ro')
    .option('--partition <NAME>', 'a partition (MBR or GPT): its number, its name, or the label or UUID in it')
    .option('--partitions', 'mount each partition that has a file system, on DIR/p1, DIR/p2, …')
    .option('--offset <N>', 'the file system starts at byte N of the image; N may end with K, M, G or T')
    .option('--sizelimit <N>', 'the file system has N bytes')
    .addOption(attachOption('sectorSize'))
    .addOption(attachOption('snapshot'))
    .addOption(attachOption('backing'))
    .option('--share <NAME>', 'ram: mount the memory that is shared under NAME (default: a private copy)')
    .option('--driver <NAME>', 'the driver, instead of SPEC')
    .addOption(attachOption('image'))
    .addOption(attachOption('option'))
    .option('-t, --type <TYPE>', 'the type of the file system (default: detected)')
    .option('-o, --options <OPTIONS>', 'options of mount(8) or of the FUSE program, separated by commas')
    .action(async function (this: Command) {
      await run(this.args, this.optsWithGlobals<MountOptions>());
    });
  endHelp(command, [
    'fusetap mount disk.img /mnt',
    'fusetap mount --partition 2 ram:golden.img /mnt',
    'fusetap mount --partitions raspberry-pi.img /mnt',
    'fusetap mount --snapshot disk.img /mnt',
    "fusetap mount --image 'a,b.img' /mnt",
    'fusetap mount --read-only -o noload disk.img /mnt',
  ]);
}

async function run(args: readonly string[], given: MountOptions): Promise<void> {
  const words = parseMountWords(given.options ?? '');
  const options = withWords(given, words);
  const { spec, directory } = splitArguments(args, options);
  const { attach, notes } = attachOf(spec && (await imageOf(spec, options)), options, words);
  if (options.verbose) notes.forEach(printNote);
  const runtime = callersRuntimeDir();
  const place: BusPlace = await resolveBus(options.bus ?? BUS_OF_MOUNTS, runtime);
  const request: MountRequest = {
    attach,
    directory,
    partition: partitionOf(options),
    range: rangeOf(options),
    type: options.type ?? null,
    options: words.passedOn,
  };
  const mounted = await withProgress('copying', options, (progress) =>
    mountImage(place, request, { ...defined({ progress }), ...tellWaits(options) }),
  );
  report(mounted, options);
}

/** The options of the command, with those of `-o`. @throws FusetapError USAGE if they differ */
function withWords(options: MountOptions, { ours, snapshot }: MountWords): MountOptions {
  for (const [name, value] of Object.entries(ours)) {
    const other = options[name as keyof typeof ours];
    if (other === undefined || other === value) continue;
    throw new FusetapError('USAGE', `--${name} ${other} and -o ${value} contradict each other`, {
      hint: 'give one of them',
    });
  }
  return { ...options, ...(ours as Partial<MountOptions>), ...(snapshot && { snapshot }) };
}

/** `SPEC DIR`, or only `DIR` with --driver or --image. @throws FusetapError USAGE */
function splitArguments(
  args: readonly string[],
  { driver, image, options }: MountOptions,
): { spec: string | null; directory: string } {
  const isApart = driver !== undefined || image !== undefined;
  // fstab always has a first field: with the image in its options, it is only a name
  const isFromFstab = isApart && args.length === 2 && options?.includes('helper=') === true;
  const words = isFromFstab ? args.slice(1) : args;
  const [directory, ...excess] = isApart ? words : words.slice(1);
  const spec = isApart ? null : words[0];
  if (spec === undefined) throw new FusetapError('USAGE', "missing required argument 'SPEC'", { hint: HELP });
  if (directory === undefined) throw new FusetapError('USAGE', "missing required argument 'DIR'", { hint: HELP });
  if (excess.length === 0) return { spec, directory };
  const hint = isApart ? 'with --driver or --image there is no SPEC, only DIR' : HELP;
  throw new FusetapError('USAGE', `too many words: ${excess.join(' ')}`, { hint });
}

const HELP = 'see fusetap mount --help';

function attachOf(
  spec: string | null,
  options: MountOptions,
  words: MountWords,
): { attach: MountRequest['attach']; notes: string[] } {
  const { driver, image, option, share, sectorSize, snapshot, backing } = options;
  const readOnly = options.readOnly || words.readOnly;
  const chosen = defined({ readOnly, driver, image, option, share, sectorSize, snapshot, backing });
  if (spec === null) return { attach: attachRequest([], chosen).request, notes: [] };
  // a path that exists is taken as it is, also with commas in it: fstab has no other way
  const isPath = /^\.{0,2}\//.test(spec) && spec.includes(',') && isThere(spec);
  const { request, notes } = isPath ? attachRequest([], { ...chosen, image: spec }) : attachRequest([spec], chosen);
  return { attach: request, notes };
}

/** Of LABEL=x and so on the path of what is attached. @throws FusetapError */
async function imageOf(spec: string, options: MountOptions): Promise<string> {
  const path = await pathOfTag(spec, options);
  if (path === spec || !options.snapshot) return path;
  throw new FusetapError('USAGE', `${spec} is attached already: --snapshot attaches an image anew`, {
    hint: 'give the image',
  });
}

function isThere(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** @throws FusetapError USAGE */
function partitionOf({ partition, partitions }: MountOptions): MountRequest['partition'] {
  if (partitions && partition !== undefined) {
    throw new FusetapError('USAGE', '--partition and --partitions contradict each other', { hint: 'give one of them' });
  }
  if (partitions) return { all: true };
  if (partition === undefined) return null;
  if (partition !== '' && partition !== '0') return partition;
  throw new FusetapError('USAGE', '--partition: give the number of a partition, 1 or more, or its name', {
    hint: 'fusetap mount IMAGE DIR lists the partitions',
  });
}

/** @throws FusetapError USAGE */
function rangeOf({ offset, sizelimit, partition, partitions }: MountOptions): MountRequest['range'] {
  if (offset === undefined && sizelimit === undefined) return null;
  if (partition !== undefined || partitions) {
    throw new FusetapError('USAGE', '--offset and --partition contradict each other', { hint: 'give one of them' });
  }
  // as with losetup(8), 0 is no limit
  return { offset: offset ?? '0', sizelimit: sizelimit === '0' ? null : (sizelimit ?? null) };
}

function report({ directory, vbd, mounted, isAlready, remarks }: MountedImage, options: MountOptions): void {
  if (!options.quiet) remarks.forEach(printNote);
  if (isAlready && options.verbose) printNote(`${vbd.image ?? vbd.path} is mounted on ${directory} already`);
  sayIfUnprinted(`it is mounted; to undo this: fusetap umount ${directory}`);
  if (!options.json) return;
  const { notes: _, ...info } = vbd;
  const [first, ...others] = mounted;
  const device = first !== undefined && others.length === 0 ? first.device : null;
  printJson({ directory, device, vbd: info, mounted });
}
