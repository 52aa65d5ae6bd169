/**
 * Translates the arguments of the mount helpers, as mount(8) and umount(8) pass them, to arguments of `fusetap`.
 *
 *      mount.fusetap SPEC DIR [-sfnv] [-N NAMESPACE] [-o OPTIONS]   ──► fusetap mount … SPEC DIR
 *      umount.fusetap DIR [-nlfvr] [-N NAMESPACE] [-t TYPE]         ──► fusetap umount DIR
 */
import { FusetapError } from '../../drivers/errors.js';

/** options of fstab(5) and mount(8) that are not for the file system */
const NOT_OURS =
  /^(rw|defaults|(no)?auto|nofail|_netdev|(no)?user|users|owner|group|(no)?relatime|[xX][-.].*|comment=.*)$/;
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
  const words: string[] = ['mount'];
  const passedOn = [KEPT_FOR_UMOUNT];
  for (const option of (values.get('-o') ?? '').split(',').filter((word) => word !== '' && !NOT_OURS.test(word))) {
    const [name = '', value = ''] = option.split(/=(.*)/s);
    if (option === 'ro') words.push('--read-only');
    else if (name === 'bus') words.push('--bus', value);
    else if (name === 'partition') words.push('--partition', value);
    else if (name === 'fstype') words.push('--type', value);
    else passedOn.push(option);
  }
  return [...words, '--options', passedOn.join(','), '--', spec, directory];
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
