/** `fusetap block-attach`: xm's word for attach. */
import type { Command } from 'commander';
import { attach } from '../../mount/client/index.js';
import { attachRequest } from '../attach-request.js';
import { withBus } from '../bus-word.js';
import { chosenBus, endHelp, type SharedOptions } from '../options.js';
import { printJson, printNote } from '../output.js';
import { withProgress } from '../progress-bar.js';

export function register(program: Command): void {
  const command = program
    .command('block-attach')
    .summary("xm's word for attach")
    .description('Attaches an image to a bus, which stands where xm has a domain. Begins the bus if need be.')
    .argument('<BUS>', 'the bus: a name, as of a domain')
    .argument('<SPEC>', 'tap:aio:/img/c.img, file:/img/c.img, phy:/dev/sdb, or any other SPEC of attach')
    .argument('<VDEV>', 'the place: xvda, /dev/xvda, hda, sda, or a slot number')
    .argument('<MODE>', 'r, w, or w! (write, sharing check waived)')
    .argument('[BACKDOM]', 'the domain of the backend: means nothing here')
    .action(async function (this: Command, bus: string) {
      const options = withBus(bus, this.optsWithGlobals<SharedOptions>());
      // behind BUS: SPEC, VDEV and MODE, then BACKDOM
      const { request, notes } = attachRequest(this.args.slice(1, 4));
      const backend = this.args[4];
      if (backend !== undefined) notes.push(`backend '${backend}' means nothing here: there are no domains here`);
      if (options.verbose) notes.forEach(printNote);
      const place = await chosenBus(options);
      const { notes: remarks = [], ...vbd } = await withProgress('copying', options, (progress) =>
        attach(place, request, { ...(progress && { progress }) }),
      );
      if (!options.quiet) remarks.forEach(printNote);
      if (options.json) printJson(vbd);
    });
  endHelp(command, ['fusetap block-attach 7 tap:aio:/img/c.img xvdb w', 'fusetap block-attach 7 phy:/dev/sdb hda r']);
}
