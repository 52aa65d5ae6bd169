/**
 * The words of `mount -o`, in fstab(5) too: ours, those for the file system, and those that are for mount(8) or systemd
 * only.
 */
import { FusetapError } from '../../drivers/errors.js';

/** Words that take a value and are the same as an option of `fusetap mount`. */
const OURS = {
  bus: 'bus',
  partition: 'partition',
  fstype: 'type',
  offset: 'offset',
  sizelimit: 'sizelimit',
  share: 'share',
  backing: 'backing',
  driver: 'driver',
  image: 'image',
} as const;

/** Words that mean nothing here: fusetap makes the loop device itself. */
const DROPPED =
  /^(rw|defaults|loop(=.*)?|(no)?auto|nofail|_netdev|(no)?user|users|owner|group|(no)?relatime|[xX][-.].*|comment=.*)$/;

export interface MountWords {
  readonly readOnly: boolean;
  readonly snapshot: boolean;
  /** by the name of the option of `fusetap mount` */
  readonly ours: Partial<Record<(typeof OURS)[keyof typeof OURS], string>>;
  /** for mount(8) or the FUSE program */
  readonly passedOn: readonly string[];
}

/** @throws FusetapError USAGE if a word is given twice with different values, or has no value */
export function parseMountWords(text: string): MountWords {
  const ours: MountWords['ours'] = {};
  const passedOn: string[] = [];
  let [readOnly, snapshot] = [false, false];
  for (const word of text.split(',').filter((each) => each !== '')) {
    const [name = '', value = ''] = word.split(/=(.*)/s);
    if (word === 'ro') readOnly = true;
    else if (word === 'snapshot') snapshot = true;
    else if (isOurs(name)) ours[OURS[name]] = settle(name, value, ours[OURS[name]]);
    else if (!DROPPED.test(word)) passedOn.push(word);
    // as with mount(8), the last one counts
    if (word === 'rw') readOnly = false;
  }
  return { readOnly, snapshot, ours, passedOn };
}

function isOurs(name: string): name is keyof typeof OURS {
  return Object.hasOwn(OURS, name);
}

function settle(name: string, value: string, before: string | undefined): string {
  if (value === '') throw new FusetapError('USAGE', `-o ${name} has no value`, { hint: `give -o ${name}=VALUE` });
  if (before === undefined || before === value) return value;
  throw new FusetapError('USAGE', `-o ${name} is given twice: ${before} and ${value}`, { hint: 'give it once' });
}
