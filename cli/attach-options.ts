/** The options of `attach`, for all commands that attach an image: each is declared here once. */
import { type Command, Option } from 'commander';
import { driverNames } from '../drivers/names.js';
import type { BackingPolicy } from '../mount/control/interface.js';
import { MODES } from '../mount/images/mode.js';
import type { AttachWords } from './attach-request.js';
import { allowOtherOption, gather, parseFileMode, parseId, sectorSizeOption, transportOption } from './options.js';

export type AttachOptionName = keyof AttachWords;

/** The compiler finds a policy that is missing here. */
const BACKING_POLICIES = Object.keys({
  'same-directory': true,
  any: true,
  none: true,
} satisfies Record<BackingPolicy, true>);

/** In the order of the help. */
const OPTIONS: Readonly<Record<AttachOptionName, () => Option>> = {
  vdev: () => new Option('--vdev <VDEV>', 'the place on the bus, for one SPEC'),
  mode: () => new Option('--mode <MODE>', 'the mode of each SPEC: r, w or w!').choices([...MODES]),
  readOnly: () => new Option('-r, --read-only', 'the same as MODE r'),
  driver: () =>
    new Option(
      '--driver <NAME>',
      `the driver, instead of SPEC: ${driverNames.join(', ')}, a file ./mine.js, or a package`,
    ),
  image: () => new Option('--image <PATH>', 'the image, instead of SPEC: the path may contain commas and colons'),
  option: () =>
    new Option(
      '--option <KEY=VALUE>',
      'an option of the first driver; file/KEY=VALUE is one of the driver below it (repeatable)',
    ).argParser(gather),
  offset: () => new Option('--offset <N>', 'the disk starts at byte N of the image (a SIZE, as 1M)'),
  sizelimit: () => new Option('--sizelimit <N>', 'the disk has N bytes (a SIZE)'),
  partitions: () =>
    new Option('--partitions', 'attach its partitions too, as xvda1, xvda2, … beside xvda (MBR and GPT)'),
  sectorSize: sectorSizeOption,
  share: () =>
    new Option('--share <NAME>', 'ram: share the memory under NAME (default: by the identity of the image file)'),
  private: () => new Option('--private', 'ram: a copy in memory that no other attach shares'),
  snapshot: () => new Option('--snapshot', 'writes go to memory and are lost at the detach; the image is only read'),
  backing: () =>
    new Option(
      '--backing <WHICH>',
      'the files that an image may name: same-directory (its own and below; the default), any, none',
    ).choices(BACKING_POLICIES),
  raw: () =>
    new Option('--raw', 'use the bytes of the image as they are, even if it looks like another format, such as qcow2'),
  filter: () =>
    new Option('--filter <NAME=VALUE>', 'delay=MS, error=KIND[:OFFSET-END][@FILE] or read-only (repeatable)').argParser(
      gather,
    ),
  passthrough: () =>
    new Option(
      '--passthrough <WHEN>',
      'let the kernel do the I/O: auto (ram only; the default), on (files too), off',
    ).choices(['auto', 'on', 'off']),
  transport: transportOption,
  allowOther: allowOtherOption,
  uid: () => new Option('--uid <N>', 'owner of the file (default: you); only root can set another').argParser(parseId),
  gid: () => new Option('--gid <N>', 'group of the file (default: yours)').argParser(parseId),
  fileMode: () =>
    new Option('--file-mode <MODE>', 'permission bits of the file, in octal (default: 0600)').argParser(parseFileMode),
};

/** One of the options, for a command that takes only some. */
export function attachOption(name: AttachOptionName): Option {
  return OPTIONS[name]();
}

/** Adds the options to a command. @param except those that do not fit it */
export function addAttachOptions(command: Command, except: readonly AttachOptionName[] = []): Command {
  for (const [name, make] of Object.entries(OPTIONS)) {
    if (!except.includes(name as AttachOptionName)) command.addOption(make());
  }
  return command;
}
