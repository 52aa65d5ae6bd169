/** The options of a disk of rbd. */
import { isAbsolute } from 'node:path';
import { FusetapError } from '../errors.js';
import { takeOptions } from '../options.js';
import { quoted } from '../quote.js';
import {
  checkUser,
  isRbdUri,
  parseRbdParts,
  type RbdAddress,
  type RbdParts,
  resolveRbdPaths,
  withUser,
} from './uri.js';

/** @throws FusetapError USAGE */
export function parseOptions(options: Readonly<Record<string, string>>): RbdAddress {
  takeOptions('rbd', options, ['uri', 'id', 'conf', 'keyring']);
  const { uri, id, conf, keyring } = options;
  if (uri === undefined || !isRbdUri(uri)) {
    const why = uri === undefined ? 'no image is named' : `${quoted(uri)} is no name of an image in Ceph`;
    throw new FusetapError('USAGE', `driver rbd: ${why}`, { hint: 'write rbd:POOL/IMAGE' });
  }
  const named = parseRbdParts(uri);
  const given = Object.entries({ id, conf, keyring }).filter(([, value]) => value !== undefined);
  for (const [key, value] of given) {
    if (value === '') throw new FusetapError('USAGE', `driver rbd: ${key} has no value`, { hint: `give ${key}=VALUE` });
    const before = named[key as 'id' | 'conf' | 'keyring'];
    if (before === value || before === null) continue;
    throw new FusetapError('USAGE', `driver rbd: ${key} is ${quoted(before)} and ${quoted(value ?? '')}`, {
      hint: 'give it once',
    });
  }
  if (id !== undefined) checkUser(id, id);
  const address = withUser({ ...named, ...(Object.fromEntries(given) as Partial<RbdParts>) });
  return resolveRbdPaths(address, (path) => {
    if (isAbsolute(path) && !path.includes('\0')) return path;
    throw new FusetapError('USAGE', `driver rbd: ${quoted(path)} is not absolute`, { hint: 'give the absolute path' });
  });
}
