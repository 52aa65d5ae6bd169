/** The kind of word that an argument or an option's value takes: derived from its name in the help. */
import type { Argument, Command, Option } from 'commander';
import { MODES } from '../../mount/images/mode.js';

export type Kind =
  /** a disk spec: a file, perhaps after a driver */
  | 'spec'
  | 'file'
  | 'directory'
  /** a directory where an image is mounted */
  | 'mounted'
  /** an attached vbd, or a file */
  | 'vbd'
  /** an attached vbd, or a disk spec */
  | 'vbd-or-spec'
  /** the vdev of an attached vbd */
  | 'attached'
  /** a free vdev */
  | 'free'
  /** a bus, or a directory */
  | 'bus'
  /** the name of a shared ram image */
  | 'share'
  | 'driver'
  | 'filter'
  | 'nothing'
  /** one of these */
  | readonly string[];

/** `COMMAND NAME` takes precedence over `NAME`, and a flag over the name of its value. */
const KINDS: Readonly<Record<string, Kind>> = {
  'umount PLACE': 'mounted',
  'create IMAGE': 'file',
  'block-detach VDEV': 'attached',
  'diff OTHER': 'vbd-or-spec',
  '--file-mode': ['0600', '0640', '0644', '0660'],
  '--sector-size': ['512', '2048', '4096'],
  '--driver': 'driver',
  '--filter': 'filter',
  '--share': 'share',
  SPEC: 'spec',
  'IMAGE|SPEC': 'spec',
  'VBD|SPEC': 'vbd-or-spec',
  'FILE|SPEC': 'spec',
  BASE: 'file',
  IMAGE: 'file',
  FILE: 'file',
  PATH: 'file',
  DIR: 'directory',
  VBD: 'vbd',
  VDEV: 'free',
  BUS: 'bus',
  'NAME|DIR': 'bus',
  MODE: MODES,
};

export function kindOfArgument(command: Command, argument: Argument): Kind {
  return kindOf(argument.argChoices, [`${command.name()} ${argument.name()}`, argument.name()]);
}

export function kindOfValue(option: Option): Kind {
  const name = /[<[](.+?)(?:\.\.\.)?[>\]]/.exec(option.flags)?.[1] ?? '';
  return kindOf(option.argChoices, [option.long ?? '', name]);
}

function kindOf(choices: readonly string[] | undefined, names: readonly string[]): Kind {
  if (choices !== undefined) return choices;
  // `FILE|-` is a FILE
  const words = names.flatMap((name) => [name, name.replace(/\|-$/, '')]);
  return words.map((word) => KINDS[word]).find((kind) => kind !== undefined) ?? 'nothing';
}

/** Whether a word must follow the option. */
export function takesValue(option: Option): boolean {
  return option.required || option.optional;
}

export function flagsOf(option: Option): string[] {
  return [option.long, option.short].filter((flag) => flag !== undefined && flag !== null) as string[];
}
