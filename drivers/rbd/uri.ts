/**
 * Names of images in a Ceph cluster, in the form of QEMU and of the command `rbd`. The command line uses this file
 * without the code of the driver.
 *
 *      rbd:[POOL/[NAMESPACE/]]IMAGE[@SNAPSHOT][:id=USER][:conf=FILE][:keyring=FILE][:mon_host=ADDRESS]
 *
 * A backslash before a character takes away its meaning: `a\:b` is an image with a colon in its name.
 */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';

const DEFAULT_POOL = 'rbd';
const DEFAULT_USER = 'admin';
const MOST_CHARACTERS = 4096;
/** longer than every name that Ceph accepts */
const MOST_NAME_BYTES = 1024;

export interface RbdAddress {
  readonly pool: string;
  /** empty: the default namespace */
  readonly namespace: string;
  readonly image: string;
  /** null: the image itself */
  readonly snapshot: string | null;
  /** the user of Ceph, without `client.` */
  readonly id: string;
  /** the path of a ceph.conf; null: where Ceph looks for it */
  readonly conf: string | null;
  /** the path of a file with the key of the user; null: as the ceph.conf says */
  readonly keyring: string | null;
  /** null: as the ceph.conf says */
  readonly monitors: string | null;
}

/** Whether a text can only be the name of an image in a Ceph cluster. */
export function isRbdUri(text: string): boolean {
  return text.startsWith('rbd:');
}

const KEYS = ['id', 'conf', 'keyring', 'mon_host'] as const;
type Key = (typeof KEYS)[number];

/** @throws FusetapError USAGE */
export function parseRbdUri(text: string): RbdAddress {
  return withUser(parseRbdParts(text));
}

/** An address whose user may be open: null is the default one. */
export type RbdParts = Omit<RbdAddress, 'id'> & { readonly id: string | null };

export function withUser(parts: RbdParts): RbdAddress {
  return { ...parts, id: parts.id ?? DEFAULT_USER };
}

/** What a text says, and nothing else. @throws FusetapError USAGE */
export function parseRbdParts(text: string): RbdParts {
  if (!isRbdUri(text)) throw wrong(text, 'it is no name of an image in Ceph', FORM);
  if (text.length > MOST_CHARACTERS) throw wrong(`${text.slice(0, 32)}…`, 'it is too long', FORM);
  if (/\p{Cc}/u.test(text)) throw wrong(text, 'it has a control character', 'remove it');
  const [path = '', ...pairs] = split(text, text.slice('rbd:'.length), ':');
  const given = parsePairs(text, pairs);
  const [whole = '', snapshot, ...more] = split(text, path, '@');
  if (more.length > 0) throw wrong(text, 'it has several snapshots', 'write \\@ for a @ in a name');
  const parts = split(text, whole, '/');
  if (parts.length > 3) throw wrong(text, 'it has too many slashes', FORM);
  const image = parts.pop() ?? '';
  const [pool = DEFAULT_POOL, namespace = ''] = parts;
  const named = { pool, image, ...(parts.length === 2 && { namespace }), ...(snapshot !== undefined && { snapshot }) };
  const plain = Object.fromEntries(
    Object.entries(named).map(([what, name]) => [what, checkName(text, what, unescaped(name))]),
  );
  return {
    pool: plain.pool ?? '',
    namespace: plain.namespace ?? '',
    image: plain.image ?? '',
    snapshot: plain.snapshot ?? null,
    id: given.get('id') ?? null,
    conf: given.get('conf') ?? null,
    keyring: given.get('keyring') ?? null,
    monitors: given.get('mon_host') ?? null,
  };
}

/** The canonical form: parsing it gives the same address. */
export function printRbdUri({ pool, namespace, image, snapshot, id, conf, keyring, monitors }: RbdAddress): string {
  const path = [pool, ...(namespace === '' ? [] : [namespace]), image].map(escaped).join('/');
  const pairs: readonly [Key, string | null][] = [
    ['id', id === DEFAULT_USER ? null : id],
    ['conf', conf],
    ['keyring', keyring],
    ['mon_host', monitors],
  ];
  const words = pairs.flatMap(([key, value]) => (value === null ? [] : [`:${key}=${value.replace(/[\\:]/g, '\\$&')}`]));
  return `rbd:${path}${snapshot === null ? '' : `@${escaped(snapshot)}`}${words.join('')}`;
}

/** The name of the image for messages: pool, namespace, image and snapshot. */
export function imageName(address: RbdAddress): string {
  const plain = { id: DEFAULT_USER, conf: null, keyring: null, monitors: null };
  return printRbdUri({ ...address, ...plain }).slice('rbd:'.length);
}

/** The address with absolute paths. @param resolve makes a path absolute */
export function resolveRbdPaths(address: RbdAddress, resolve: (path: string) => string): RbdAddress {
  const absolute = (path: string | null): string | null => (path === null ? null : resolve(path));
  return { ...address, conf: absolute(address.conf), keyring: absolute(address.keyring) };
}

export const rbdUris = {
  driver: 'rbd',
  matches: isRbdUri,
  canonical: (text: string, resolve: (path: string) => string): string =>
    printRbdUri(resolveRbdPaths(parseRbdUri(text), resolve)),
  instead:
    'only the image itself can be attached; qemu-img convert -O raw IMAGE rbd:POOL/NAME copies the disk of another one',
};

function parsePairs(text: string, pairs: readonly string[]): Map<Key, string> {
  const found = new Map<Key, string>();
  for (const pair of pairs) {
    const [, name = pair, value = ''] = /^([^=]*)=(.*)$/s.exec(pair) ?? [];
    if (name === 'key') {
      throw wrong(text, 'it has a key, which others could see', 'name a file with it: keyring=FILE');
    }
    const key = KEYS.find((known) => known === name);
    if (key === undefined)
      throw wrong(text, `it has no parameter ${quoted(name)}`, `parameters are ${KEYS.join(', ')}`);
    if (found.has(key)) throw wrong(text, `${key} is given twice`, 'give it once');
    found.set(key, checkValue(text, key, unescaped(value)));
  }
  return found;
}

function checkValue(text: string, key: Key, value: string): string {
  if (value === '') throw wrong(text, `${key} has no value`, `give ${key}=VALUE`);
  return key === 'id' ? checkUser(text, value) : value;
}

/** A user of Ceph, without `client.`. */
export function checkUser(text: string, id: string): string {
  if (/^[A-Za-z0-9._-]+$/.test(id)) return id;
  throw wrong(text, `${quoted(id)} is no user of Ceph`, 'a user has letters, digits and .-_');
}

function checkName(text: string, what: string, name: string): string {
  if (name === '') throw wrong(text, `the ${what} has no name`, FORM);
  if (Buffer.byteLength(name) <= MOST_NAME_BYTES) return name;
  throw wrong(
    `${text.slice(0, 32)}…`,
    `the name of the ${what} is too long`,
    `it has at most ${MOST_NAME_BYTES} bytes`,
  );
}

/** Splits at each separator without a backslash before it. The parts keep their backslashes. */
function split(text: string, part: string, separator: string): string[] {
  const parts = [''];
  for (let i = 0; i < part.length; i++) {
    const character = part.charAt(i);
    if (character === '\\' && i + 1 === part.length)
      throw wrong(text, 'it ends with a backslash', 'write \\\\ for one');
    if (character === separator) parts.push('');
    else parts[parts.length - 1] += character === '\\' ? character + part.charAt(++i) : character;
  }
  return parts;
}

const unescaped = (part: string): string => part.replace(/\\(.)/gs, '$1');
const escaped = (name: string): string => name.replace(/[\\:@/]/g, '\\$&');

const FORM = 'write rbd:POOL/IMAGE or rbd:POOL/IMAGE@SNAPSHOT';

/** No key is shown, whatever is wrong, and however it is written. */
function wrong(text: string, why: string, hint: string): FusetapError {
  const shown = text.replace(/:\s*key\s*=.*/is, ':key=…');
  return new FusetapError('USAGE', `${quoted(shown)}: ${why}`, { hint });
}
