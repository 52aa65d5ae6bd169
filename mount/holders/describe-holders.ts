/** The users of a file, as text for a message. */
import type { Holder } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';

/** how many holders a message names */
const NAMED = 6;

/** Holders in one line, as `pid 123 (qemu-img), /dev/loop0 mounted on /mnt`. */
export function describeHolders(holders: readonly Holder[]): string {
  if (holders.length === 0) return 'a process or mount that cannot be seen from here';
  // keeper and server of one bus give the same text: show it once
  const texts = [...new Set(holders.map(describeHolder))];
  const more = texts.length > NAMED ? ` and ${texts.length - NAMED} more` : '';
  return texts.slice(0, NAMED).join(', ') + more;
}

function describeHolder(holder: Holder): string {
  if (holder.bus !== undefined)
    return `bus ${named(holder.bus)}${holder.vdev === undefined ? '' : ` as ${holder.vdev}`}`;
  if (holder.loop !== undefined)
    return holder.loop + (holder.mount === undefined ? '' : ` mounted on ${named(holder.mount)}`);
  if (holder.mount !== undefined) return `a mount at ${named(holder.mount)}`;
  return `pid ${holder.pid}${holder.command === undefined ? '' : ` (${named(holder.command)})`}`;
}
