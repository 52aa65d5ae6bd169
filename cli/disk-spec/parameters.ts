/**
 * The scanner of both grammars: turns text into named parameters.
 *
 *     xm   target, vdev, access, backend, protocol          xl   target, format, vdev, access
 *
 * Fields are separated by commas; white space before a field is ignored. A field is key=value, a flag, or the next
 * of the positions above that has no value yet. `target=` takes the rest of the line.
 */
import { quoted } from '../../drivers/quote.js';
import { APART_HINT, refuse } from './disk-spec.js';

export type ParameterName =
  | 'target'
  | 'format'
  | 'vdev'
  | 'access'
  | 'devtype'
  | 'backend'
  | 'backendtype'
  | 'script'
  | 'specification'
  | 'protocol'
  | 'discard'
  | 'direct-io-safe'
  | 'trust';

export interface Parameter {
  readonly value: string;
  /** given by key or flag, not by position */
  readonly isNamed: boolean;
}

export type Parameters = ReadonlyMap<ParameterName, Parameter>;

export const XM_POSITIONS: readonly ParameterName[] = ['target', 'vdev', 'access', 'backend', 'protocol'];
export const XL_POSITIONS: readonly ParameterName[] = ['target', 'format', 'vdev', 'access'];

const KEYS: readonly ParameterName[] = [
  'format',
  'vdev',
  'access',
  'devtype',
  'backend',
  'backendtype',
  'script',
  'specification',
  'target',
];

// flags are values of the parameter that they set, so two flags that contradict each other count as one given twice
const FLAGS: ReadonlyMap<string, readonly [ParameterName, string]> = new Map([
  ['cdrom', ['devtype', 'cdrom']],
  ['direct-io-safe', ['direct-io-safe', 'direct-io-safe']],
  ['discard', ['discard', 'discard']],
  ['no-discard', ['discard', 'no-discard']],
  ['trusted', ['trust', 'trusted']],
  ['untrusted', ['trust', 'untrusted']],
]);

const KEY_AND_VALUE = /^([a-z][a-z0-9_-]*)=(.*)$/s;

const isBlank = (character: string | undefined): boolean =>
  character === ' ' || character === '\t' || character === '\n';

/** A field without the white space before it. */
export function skipBlanks(text: string): string {
  let start = 0;
  while (isBlank(text[start])) start++;
  return text.slice(start);
}

/** A field without the white space around it. */
export function trimmed(text: string): string {
  let end = text.length;
  while (isBlank(text[end - 1])) end--;
  return skipBlanks(text.slice(0, end));
}

/** Whether a field is key=value or a flag, known or not. */
export function isNamedField(field: string): boolean {
  return KEY_AND_VALUE.test(field) || FLAGS.has(field);
}

/** Whether a field is key=value, known or not. */
export function isKeyField(field: string): boolean {
  return KEY_AND_VALUE.test(field);
}

/**
 * @throws FusetapError USAGE for unknown keys, a parameter given twice, too many positions
 */
export function scanParameters(text: string, positions: readonly ParameterName[]): Parameters {
  const parameters = new Map<ParameterName, Parameter>();
  let rest: string | null = text;
  while (rest !== null) {
    const start = skipBlanks(rest);
    const comma = start.startsWith('target=') ? -1 : start.indexOf(',');
    const field = comma === -1 ? start : start.slice(0, comma);
    rest = comma === -1 ? null : start.slice(comma + 1);
    if (!scanNamed(parameters, field)) scanPositional(parameters, positions, field, rest === null);
  }
  return parameters;
}

function scanNamed(parameters: Map<ParameterName, Parameter>, field: string): boolean {
  const flag = FLAGS.get(trimmed(field));
  if (flag !== undefined) {
    setNamed(parameters, flag[0], flag[1]);
    return true;
  }
  const [, key, value] = KEY_AND_VALUE.exec(field) ?? [];
  if (key === undefined || value === undefined) return false;
  const name = KEYS.find((known) => known === key);
  if (name === undefined) {
    throw refuse(`no key ${quoted(key)}`, `keys are ${KEYS.join(', ')}; if it is a path, write ./ before it`);
  }
  setNamed(parameters, name, name === 'target' ? value : trimmed(value));
  return true;
}

function setNamed(parameters: Map<ParameterName, Parameter>, name: ParameterName, value: string): void {
  const before = parameters.get(name);
  // an empty position has no value yet
  if (before !== undefined && (before.isNamed || before.value !== '')) {
    throw refuse(`${name} is given twice: ${quoted(before.value)}, ${quoted(value)}`, 'give it once');
  }
  parameters.set(name, { value, isNamed: true });
}

function scanPositional(
  parameters: Map<ParameterName, Parameter>,
  positions: readonly ParameterName[],
  field: string,
  isLast: boolean,
): void {
  const name = positions.find((position) => !parameters.has(position));
  if (name !== undefined) {
    parameters.set(name, { value: name === 'target' ? field : trimmed(field), isNamed: false });
  } else if (!isLast || trimmed(field) !== '') {
    throw refuse(`a field too many: ${quoted(field)}`, `the order is ${positions.join(',')}; ${APART_HINT}`);
  }
}
