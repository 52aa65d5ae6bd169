/**
 * Translates the arguments of the mount helpers, as mount(8) and umount(8) pass them, to arguments of `fusetap`.
 *
 *      mount.fusetap SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]   ──► fusetap mount … SPEC DIR
 *      umount.fusetap DIR [-nlfvr] [-N NAMESPACE] [-t TYPE]         ──► fusetap umount DIR
 */
import { FusetapError } from '../../drivers/errors.js';

const TAKES_A_WORD = new Set(['-o', '-N', '-t']);

/** This makes mount(8) record the helper, so that umount(8) runs umount.fusetap. */
export const KEPT_FOR_UMOUNT = 'helper=fusetap';

/**
 * The arguments of `fusetap`; null if mount(8) only simulates (`-f`).
 * @throws FusetapError USAGE
 */
export function mountWords(argv: readonly string[]): string[] | null {
  const { plain, flags, values } = split(argv);
  const [spec, directory, ...excess] = plain;
  if (spec === undefined || directory === undefined || excess.length > 0) {
    throw new FusetapError('USAGE', 'mount.fusetap takes SPEC DIR', { hint: 'mount -t fusetap SPEC DIR [-o OPTIONS]' });
  }
  if (flags.includes('f')) return null;
  const options = [KEPT_FOR_UMOUNT, values.get('-o') ?? ''].filter((word) => word !== '').join(',');
  return ['mount', '--options', options, '--', spec, directory];
}

/** The arguments of `fusetap`. @throws FusetapError USAGE */
export function umountWords(argv: readonly string[]): string[] {
  const [directory, ...excess] = split(argv).plain;
  if (directory !== undefined && excess.length === 0) return ['umount', '--', directory];
  throw new FusetapError('USAGE', 'umount.fusetap takes DIR', { hint: 'umount DIR' });
}

interface SplitWords {
  readonly plain: string[];
  /** letters */
  readonly flags: string[];
  readonly values: Map<string, string>;
}

function split(argv: readonly string[]): SplitWords {
  const words: SplitWords = { plain: [], flags: [], values: new Map() };
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (TAKES_A_WORD.has(word)) words.values.set(word, argv[++i] ?? '');
    else if (word.startsWith('-') && word !== '-') words.flags.push(...word.slice(1));
    else words.plain.push(word);
  }
  return words;
}
