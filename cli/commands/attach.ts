/** `fusetap attach`: an image becomes a file. */
import type { Command } from 'commander';
import { attach } from '../../mount/client.js';
import { type AttachWords, attachRequest } from '../attach-request.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { print, printJson, printNote } from '../output.js';

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
    .option('--driver <NAME>', 'the driver, in place of SPEC: aio, ram or sync (default: aio)')
    .option('--image <PATH>', 'the image, in place of SPEC: the path may hold commas and colons')
    .action(async (spec: Word, vdev: Word, mode: Word, _: unknown, self: Command) => {
      const words = [spec, vdev, mode].filter((word) => word !== undefined);
      await run(words, self.optsWithGlobals<AttachOptions>());
    });
  endHelp(command, [
    'fusetap attach disk.img',
    'fusetap attach tap:ram:golden.img,xvdb,w',
    "fusetap attach --driver aio --image 'a,b.img' xvdc r",
  ]);
}

async function run(words: readonly string[], options: AttachOptions): Promise<void> {
  const { request, notes } = attachRequest(words, options);
  if (options.verbose) notes.forEach(printNote);
  const vbd = await attach(await chosenBus(options), request);
  if (options.json) printJson(vbd);
  else print(vbd.path);
}
