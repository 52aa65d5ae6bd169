/**
 * The parameters of a disk spec that only a hypervisor can act on: checked where xl checks them, then noted.
 */
import { quoted } from '../../drivers/quote.js';
import { refuse } from './disk-spec.js';
import type { ParameterName, Parameters } from './parameters.js';

const CHOICES: readonly (readonly [ParameterName, readonly string[]])[] = [
  ['backendtype', ['phy', 'tap', 'qdisk', 'standalone']],
  ['specification', ['xen', 'virtio']],
];

// in the order in which the notes are said
const MEANINGLESS: readonly (readonly [ParameterName, string])[] = [
  ['backend', 'there are no domains here'],
  ['protocol', 'there are no domains here'],
  ['backendtype', 'fusetap serves the disk itself'],
  ['specification', 'the disk is a file'],
  ['script', 'fusetap runs no script, the target is taken as an image'],
  ['direct-io-safe', 'no image is opened with O_DIRECT'],
  ['trust', 'there are no domains here'],
];

/**
 * What was given although it means nothing here.
 *
 * @throws FusetapError USAGE for a value that xl does not know either
 */
export function noteMeaningless(parameters: Parameters): string[] {
  const given = (name: ParameterName): string => parameters.get(name)?.value ?? '';
  for (const [name, values] of CHOICES) {
    if (given(name) !== '' && !values.includes(given(name))) {
      throw refuse(`no ${name} ${quoted(given(name))}`, `use ${values.join(', ')}`);
    }
  }
  const notes = MEANINGLESS.filter(([name]) => given(name) !== '').map(([name, why]) => {
    const isFlag = name === 'trust' || name === 'direct-io-safe';
    return `${isFlag ? '' : `${name} `}${quoted(given(name))} means nothing here: ${why}`;
  });
  if (given('discard') === 'no-discard') notes.push("'no-discard' means nothing here: holes can always be punched");
  return notes;
}
