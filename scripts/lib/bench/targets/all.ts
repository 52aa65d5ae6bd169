/** All targets, in the order of tables and plots, and their selection by name. */
import { FusetapError } from '../../../../drivers/errors.js';
import { quoted } from '../../../../drivers/quote.js';
import { matchesWord } from '../jobs.js';
import { fusetapTargets } from './fusetap.js';
import { loop, raw } from './kernel.js';
import { nbdTargets } from './nbd.js';
import { nbdkit } from './nbdkit.js';
import { otherQemus, qemu, qemuFormats } from './qemu.js';
import { rbdTargets } from './rbd.js';
import type { Target } from './target.js';

export const ALL_TARGETS: readonly Target[] = [
  raw,
  loop,
  qemu,
  ...otherQemus,
  nbdkit,
  ...qemuFormats,
  ...fusetapTargets,
  ...nbdTargets,
  ...rbdTargets,
];

/** The targets of a list of names, in which `*` matches any characters. @throws FusetapError USAGE */
export function selectTargets(words: readonly string[]): Target[] {
  for (const word of words) {
    if (ALL_TARGETS.some(({ name }) => matchesWord(name, word))) continue;
    throw new FusetapError('USAGE', `there is no target ${quoted(word)}`, {
      hint: `there are ${ALL_TARGETS.map(({ name }) => name).join(', ')}`,
    });
  }
  return ALL_TARGETS.filter(({ name }) => words.some((word) => matchesWord(name, word)));
}
