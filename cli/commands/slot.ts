/** `fusetap slot`: prints Xen's number of a vdev, or the vdev of a number. */
import type { Command } from 'commander';
import { parseSlot, slotOfNumber } from '../../mount/slots/slots.js';
import { endHelp, type SharedOptions } from '../options.js';
import { print, printJson } from '../output.js';

export function register(program: Command): void {
  const command = program
    .command('slot')
    .summary("print Xen's number of a vdev, or the vdev of a number")
    .description("Prints Xen's number of a vdev, or the vdev of a number. Needs no bus.")
    .argument('<VDEV|NUMBER>', 'xvda, hdc, sdb1, d0p1, or 51712, 0xca00')
    .action((word: string, _: unknown, self: Command) => {
      const place = parseSlot(word);
      if (self.optsWithGlobals<SharedOptions>().json) printJson(place);
      else print(slotOfNumber(word) === null ? String(place.slot) : place.vdev);
    });
  endHelp(command, ['fusetap slot xvdb', 'fusetap slot 51728']);
}
