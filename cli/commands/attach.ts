/** `fusetap attach`: attaches images; each becomes a file. */

import type { Command } from 'commander';
import { defined } from '../../drivers/defined.js';
import { driverSummaries } from '../../drivers/names.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { attachAll } from '../attach-all.js';
import { addAttachOptions } from '../attach-options.js';
import type { AttachWords } from '../attach-request.js';
import { disksOfWords } from '../attach-words.js';
import type { ListedDisk } from '../listed-disk.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printJson, sayIfUnprinted } from '../output.js';
import { checkPrivate, keepPrivate, privateName } from '../private-share.js';

type AttachOptions = SharedOptions & AttachWords & { config?: string };

export function register(program: Command): void {
  const command = program
    .command('attach')
    .summary('attach images')
    .description(
      'Attaches an image and prints the path of the file that is the disk. Starts the bus if it does not run. ' +
        'Several SPECs, each with VDEV and MODE after it if you like, are attached all or none; their paths are ' +
        'printed one per line.',
    )
    .usage('[options] SPEC [VDEV] [MODE] [SPEC...]')
    .argument('[SPEC]', 'DRIVER:PATH, DRIVER:DRIVER:PATH, PATH, tap:DRIVER:PATH,VDEV,MODE or TARGET,FORMAT,VDEV,ACCESS')
    .argument('[VDEV]', 'the place on the bus: xvda, hda, sda, or a slot number (default: the first free xvd*)')
    .argument('[MODE]', 'r, w, or w! (write, without the sharing check) (default: w)')
    .argument('[SPEC...]', 'more images')
    .action(async function (this: Command) {
      await run(this.args, this.optsWithGlobals<AttachOptions>());
    });
  addAttachOptions(command).option(
    '--config <FILE>',
    'attach all disks of FILE, or none: a domain file of xm or xl, or what config or ls --json prints; - is stdin',
  );
  const examples = [
    'fusetap attach disk.img',
    'fusetap attach a.img b.img ram:c.img',
    'fusetap attach --snapshot disk.img',
    'fusetap attach ram:vhd:golden.vhd',
    'fusetap attach tap:ram:golden.img,xvdb,w',
    "fusetap attach --driver aio --image 'a,b.img' xvdc r",
    'fusetap attach --filter delay=20 --filter error=write:1M-2M ram:golden.img',
    'fusetap attach --bus mirage --config mirage.xl',
  ];
  endHelp(command, examples, { lists: [{ title: 'Drivers', rows: driverSummaries }] });
}

/** Loads the readers of files only if there is one. */
async function disksOfConfig(file: string, words: readonly string[], options: AttachOptions): Promise<ListedDisk[]> {
  const { disksOfFile } = await import('../disk-file/disks-of-file.js');
  return disksOfFile(file, words, options);
}

async function run(words: readonly string[], options: AttachOptions): Promise<void> {
  const named =
    options.config === undefined ? disksOfWords(words, options) : await disksOfConfig(options.config, words, options);
  if (options.private) checkPrivate(named, options);
  const place = await chosenBus(options);
  const disks = options.private ? keepPrivate(named, privateName(place)) : named;
  const attach = (signal?: AbortSignal): Promise<VbdInfo[]> =>
    attachAll(place, disks, { ...options, ...defined({ signal }) });
  // the bus undoes a single attach itself if we are gone, so only more need the code that catches signals
  const vbds = disks.length === 1 ? await attach() : await (await import('../run/until-signal.js')).untilSignal(attach);
  if (vbds === null) return;
  sayIfUnprinted(howToUndo(vbds));
  const isList = options.config !== undefined || vbds.length > 1;
  if (options.json) printJson(isList ? vbds : vbds[0]);
  else for (const { path } of vbds) print(path);
}

/** The hint if the path could not be printed: a script that stops here must know that it leaves a vbd behind. */
function howToUndo(vbds: readonly VbdInfo[]): string {
  const [first] = vbds;
  if (first === undefined) return 'nothing was attached';
  const vdevs = vbds.map(({ vdev }) => vdev).join(' ');
  return `${vdevs} of bus ${first.bus} is attached; to undo this: fusetap detach --bus ${first.bus} ${vdevs}`;
}
