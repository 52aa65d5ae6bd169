/** `fusetap block-attach`: xm's word for attach. */
import type { Command } from 'commander';
import { quoted } from '../../drivers/quote.js';
import { attachAll } from '../attach-all.js';
import { attachRequest } from '../attach-request.js';
import { chosenBus, endHelp, type SharedOptions, withBus } from '../options.js';
import { printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('block-attach')
    .summary("xm's word for attach")
    .description(
      'Attaches an image to a bus, which takes the place of a domain in xm. Starts the bus if it does not run.',
    )
    .argument('<BUS>', 'the name of the bus, for example the name of a domain')
    .argument('<SPEC>', 'tap:aio:/img/c.img, file:/img/c.img, phy:/dev/sdb, or any other SPEC of attach')
    .argument('<VDEV>', 'the place on the bus: xvda, /dev/xvda, hda, sda, or a slot number')
    .argument('<MODE>', 'r, w, or w! (write, without the sharing check)')
    .argument('[BACKDOM]', 'the domain of the backend: accepted, without effect')
    .action(async function (this: Command, bus: string) {
      const options = withBus(bus, this.optsWithGlobals<SharedOptions>());
      // after BUS come SPEC, VDEV and MODE, then BACKDOM
      const { request, notes } = attachRequest(this.args.slice(1, 4));
      const backend = this.args[4];
      const more = backend === undefined ? [] : [`backend ${quoted(backend)} has no effect: there are no domains here`];
      const disk = { where: null, request, notes: [...notes, ...more] };
      const [vbd] = await attachAll(await chosenBus(options), [disk], options);
      if (options.json) printJson(vbd);
    });
  endHelp(command, ['fusetap block-attach 7 tap:aio:/img/c.img xvdb w', 'fusetap block-attach 7 phy:/dev/sdb hda r']);
}
