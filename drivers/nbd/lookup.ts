/**
 * Looks up the addresses of hosts, one host at a time. A lookup that hangs occupies a thread of Node's pool, and cannot be
 * cancelled: if each try of each disk began another one, no thread would be left for the files of other disks.
 */
import type { LookupAddress } from 'node:dns';
import { lookup } from 'node:dns/promises';
import type { LookupFunction } from 'node:net';

let turn: Promise<unknown> = Promise.resolve();
/** the lookups that are not over; a host has one at most */
const pending = new Map<string, Promise<LookupAddress[]>>();

/** For net.connect. */
export const lookupInTurn: LookupFunction = (host, options, callback) => {
  addressesOf(host).then(
    (addresses) => {
      const [first] = addresses;
      if (options.all) callback(null, addresses);
      else callback(null, first?.address ?? '', first?.family);
    },
    (error: NodeJS.ErrnoException) => callback(error, ''),
  );
};

function addressesOf(host: string): Promise<LookupAddress[]> {
  const known = pending.get(host);
  if (known !== undefined) return known;
  const found = turn.then(() => lookup(host, { all: true }));
  pending.set(host, found);
  turn = found.catch(() => {}).finally(() => pending.delete(host));
  return found;
}
