/** `fusetap attach`: attaches an image; it becomes a file. */

import { type Command, Option } from 'commander';
import { defined } from '../../drivers/defined.js';
import { FusetapError } from '../../drivers/errors.js';
import { driverNames, driverSummaries } from '../../drivers/names.js';
import type { AttachResult } from '../../mount/control/interface.js';
import { attachOne } from '../attach-one.js';
import { type AttachWords, attachRequest } from '../attach-request.js';
import { attachAll } from '../disk-file/attach-all.js';
import { readDiskFile } from '../disk-file/read.js';
import {
  allowOtherOption,
  chosenBus,
  endHelp,
  gather,
  parseFileMode,
  parseId,
  type SharedOptions,
  sectorSizeOption,
  transportOption,
} from '../options.js';
import { print, printJson, printNote, sayIfUnprinted } from '../output.js';

type AttachOptions = SharedOptions & AttachWords & { config?: string };

export function register(program: Command): void {
  const command = program
    .command('attach')
    .summary('attach an image')
    .description(
      'Attaches an image and prints the path of the file that is the disk. Starts the bus if it does not run.',
    )
    .argument('[SPEC]', 'DRIVER:PATH, PATH, tap:DRIVER:PATH,VDEV,MODE or TARGET,FORMAT,VDEV,ACCESS')
    .argument('[VDEV]', 'the place on the bus: xvda, hda, sda, or a slot number (default: the first free xvd*)')
    .argument('[MODE]', 'r, w, or w! (write, without the sharing check) (default: w)')
    .option('-r, --read-only', 'the same as MODE r')
    .option('--driver <NAME>', `the driver, instead of SPEC: ${driverNames.join(', ')}, a file ./mine.js, or a package`)
    .option('--image <PATH>', 'the image, instead of SPEC: the path may contain commas and colons')
    .option('--option <KEY=VALUE>', 'an option of the driver (repeatable)', gather)
    .option('--offset <N>', 'the disk starts at byte N of the image; N may end with K, M, G or T')
    .option('--sizelimit <N>', 'the disk has N bytes')
    .option('--partitions', 'attach its partitions too, as xvda1, xvda2, … beside xvda (MBR and GPT)')
    .addOption(sectorSizeOption())
    .option('--share <NAME>', 'ram: share the memory under NAME (default: by the identity of the image file)')
    .option('--filter <NAME=VALUE>', 'delay=MS, error=KIND[:OFFSET-END][@FILE] or read-only (repeatable)', gather)
    .addOption(
      new Option(
        '--passthrough <WHEN>',
        'let the kernel do the I/O: auto (ram only; the default), on (files too), off',
      ).choices(['auto', 'on', 'off']),
    )
    .addOption(transportOption())
    .addOption(allowOtherOption())
    .option('--uid <N>', 'owner of the file (default: you); only root can set another', parseId)
    .option('--gid <N>', 'group of the file (default: yours)', parseId)
    .option('--file-mode <MODE>', 'permission bits of the file, in octal (default: 0600)', parseFileMode)
    .option(
      '--config <FILE>',
      'attach all disks of FILE, or none: a domain file of xm or xl, or JSON as ls --json prints it',
    )
    .action(async function (this: Command) {
      const options = this.optsWithGlobals<AttachOptions>();
      if (options.config === undefined) await run(this.args, options);
      else await runFile(options.config, this.args, options);
    });
  const width = Math.max(...driverNames.map((name) => name.length));
  const drivers = driverSummaries.map(([name, summary]) => `  ${name.padEnd(width)}  ${summary}`);
  command.addHelpText('after', `\nDrivers:\n${drivers.join('\n')}`);
  endHelp(command, [
    'fusetap attach disk.img',
    'fusetap attach tap:ram:golden.img,xvdb,w',
    "fusetap attach --driver aio --image 'a,b.img' xvdc r",
    'fusetap attach --filter delay=20 --filter error=write:1M-2M ram:golden.img',
    'fusetap attach --bus mirage --config mirage.xl',
  ]);
}

async function run(words: readonly string[], options: AttachOptions): Promise<void> {
  const vbd = await attachOne(attachRequest(words, options), options);
  sayIfUnprinted(howToUndo([vbd]));
  if (options.json) printJson(vbd);
  else print(vbd.path);
}

/** The hint if the path could not be printed: a script that stops here must know that it leaves a vbd behind. */
function howToUndo(vbds: readonly AttachResult[]): string {
  const [first] = vbds;
  if (first === undefined) return 'nothing was attached';
  const vdevs = vbds.map(({ vdev }) => vdev).join(' ');
  return `${vdevs} of bus ${first.bus} is attached; to undo this: fusetap detach --bus ${first.bus} ${vdevs}`;
}

const OF_ONE_DISK = ['readOnly', 'driver', 'image', 'option', 'offset', 'sizelimit', 'share', 'filter'] as const;

async function runFile(file: string, words: readonly string[], options: AttachOptions): Promise<void> {
  const other = words[0] ?? OF_ONE_DISK.find((name) => options[name] !== undefined);
  if (other !== undefined) {
    throw new FusetapError('USAGE', `--config and ${other} contradict each other: the file names the disks`, {
      hint: 'with --config, give only options for all disks: --passthrough, --partitions, --transport and so on',
    });
  }
  const { passthrough, transport, partitions, sectorSize, allowOther, uid, gid, fileMode } = options;
  const forAll = defined({ passthrough, transport, partitions, sectorSize, allowOther, uid, gid, fileMode });
  const disks = readDiskFile(file, forAll);
  if (options.verbose) for (const { where, notes } of disks) for (const note of notes) printNote(`${where}: ${note}`);
  const attached = await attachAll(await chosenBus(options), disks, options);
  if (!options.quiet) for (const { notes = [] } of attached) notes.forEach(printNote);
  sayIfUnprinted(howToUndo(attached));
  if (options.json) printJson(attached.map(({ notes: _, ...vbd }) => vbd));
  else for (const { path } of attached) print(path);
}
