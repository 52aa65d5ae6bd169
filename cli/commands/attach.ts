/** `fusetap attach`: an image becomes a file. */
import { type Command, Option } from 'commander';
import { attach } from '../../mount/client.js';
import { type AttachWords, attachRequest } from '../attach-request.js';
import { chosenBus, endHelp, type SharedOptions, transportOption } from '../options.js';
import { print, printJson, printNote } from '../output.js';
import { withProgress } from '../progress-bar.js';

type AttachOptions = SharedOptions & AttachWords;
/** commander gives undefined for an argument that is not there */
type Word = string | undefined;

export function register(program: Command): void {
  const command = program
    .command('attach')
    .summary('attach an image')
    .description('Attaches an image and prints the path of the file that is the disk. Begins the bus if need be.')
    .argument('[SPEC]', 'DRIVER:PATH, PATH, tap:DRIVER:PATH,VDEV,MODE or TARGET,FORMAT,VDEV,ACCESS')
    .argument('[VDEV]', 'the place: xvda, hda, sda, or a slot number (default: the first free xvd*)')
    .argument('[MODE]', 'r, w, or w! (write, sharing check waived) (default: w)')
    .option('-r, --read-only', 'the same as MODE r')
    .option('--driver <NAME>', 'the driver, in place of SPEC: aio, ram, sync, a file ./mine.js, or a package')
    .option('--image <PATH>', 'the image, in place of SPEC: the path may hold commas and colons')
    .option('--option <KEY=VALUE>', 'an option of the driver (repeatable)', gather)
    .option('--offset <N>', 'the disk begins at byte N of the image; K, M, G, T may follow')
    .option('--sizelimit <N>', 'the disk has N bytes')
    .option('--share <NAME>', 'ram: the name that the image is shared under (default: by the identity of its file)')
    .option('--filter <NAME=VALUE>', 'delay=MS, error=KIND[:OFFSET-END][@FILE] or read-only (repeatable)', gather)
    .addOption(
      new Option(
        '--passthrough <WHEN>',
        'let the kernel do the I/O: auto (ram only; the default), on (files too), off',
      ).choices(['auto', 'on', 'off']),
    )
    .addOption(transportOption())
    .action(async (spec: Word, vdev: Word, mode: Word, _: unknown, self: Command) => {
      const words = [spec, vdev, mode].filter((word) => word !== undefined);
      await run(words, self.optsWithGlobals<AttachOptions>());
    });
  endHelp(command, [
    'fusetap attach disk.img',
    'fusetap attach tap:ram:golden.img,xvdb,w',
    "fusetap attach --driver aio --image 'a,b.img' xvdc r",
    'fusetap attach --filter delay=20 --filter error=write:1M-2M ram:golden.img',
  ]);
}

/** Collects an option that may be given again and again, for commander. */
function gather(word: string, before: readonly string[] = []): string[] {
  return [...before, word];
}

async function run(words: readonly string[], options: AttachOptions): Promise<void> {
  const { request, notes } = attachRequest(words, options);
  if (options.verbose) notes.forEach(printNote);
  const place = await chosenBus(options);
  const { notes: remarks = [], ...vbd } = await withProgress('copying', options, (progress) =>
    attach(place, request, { ...(progress && { progress }) }),
  );
  if (!options.quiet) remarks.forEach(printNote);
  if (options.json) printJson(vbd);
  else print(vbd.path);
}
