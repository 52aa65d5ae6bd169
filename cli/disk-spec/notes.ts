/**
 * The parameters of a disk spec that only a hypervisor can use: checked if xl checks them, then reported as notes.
 */
import { quoted } from '../../drivers/quote.js';
import { refuse } from './disk-spec.js';
import type { ParameterName, Parameters } from './parameters.js';

const CHOICES: readonly (readonly [ParameterName, readonly string[]])[] = [
  ['backendtype', ['phy', 'tap', 'qdisk', 'standalone']],
  ['specification', ['xen', 'virtio']],
];

// in the order of the notes
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
 * Notes on the parameters that have no effect here.
 *
 * @throws FusetapError USAGE for a value that xl does not know
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
    return `${isFlag ? '' : `${name} `}${quoted(given(name))} has no effect: ${why}`;
  });
  if (given('discard') === 'no-discard') notes.push("'no-discard' has no effect: holes can always be punched");
  return notes;
}
