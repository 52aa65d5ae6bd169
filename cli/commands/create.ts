/** `fusetap create`: makes an image. */
import { resolve } from 'node:path';
import { type Command, Option } from 'commander';
import { createdFormats, creatorOf } from '../../drivers/creating/formats.js';
import { FusetapError } from '../../drivers/errors.js';
import { endHelp, gather, type HelpList, type SharedOptions } from '../options.js';
import { printJson } from '../output.js';
import { parseSize } from '../size.js';

const DEFAULT_FORMAT = 'raw';

type CreateWords = SharedOptions & {
  format: string;
  backing?: string;
  backingFormat?: string;
  option?: string[];
  force?: boolean;
};

export function register(program: Command): void {
  const command = program
    .command('create')
    .summary('make an image')
    .description(
      'Makes an image whose disk has SIZE bytes: raw and sparse, or of another format; of some formats over a backing file, ' +
        'which must be there. Never overwrites a file: exit 4 if IMAGE exists, unless --force is given.',
    )
    .argument('<IMAGE>', 'the file to make')
    .argument(
      '[SIZE]',
      'in bytes, or with a unit: K, M, G, T or KiB, MiB … (1024), KB, MB … (1000) (default: that of the backing file)',
    )
    .addOption(
      new Option('--format <FORMAT>', 'the format of the image').choices(createdFormats).default(DEFAULT_FORMAT),
    )
    .option('--backing <BASE>', 'the file that the disk shows where nothing was written; only read')
    .addOption(new Option('--backing-format <FORMAT>', 'the format of BASE (default: raw)').choices(backingFormats()))
    .option('--option <KEY=VALUE>', 'an option of the format (repeatable)', gather)
    .option('--force', 'replace IMAGE if it exists and is not in use; it keeps its owner and mode')
    .action(async (image: string, size: string | undefined, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<CreateWords>();
      const { createImage } = await import('../../mount/offline/create-image.js');
      const created = await createImage(requestOf(image, size, options));
      if (options.json) printJson({ ...created, image: resolve(image) });
    });
  const lists = createdFormats.map(optionsOf);
  endHelp(
    command,
    [
      'fusetap create disk.img 10G',
      'fusetap create --format qcow2 disk.qcow2 10G',
      'fusetap create --format qcow2 --backing golden.img clone.qcow2',
      'fusetap create --format qcow2 --option cluster_size=2M big.qcow2 1T',
      'fusetap create --format vhd --backing golden.vhd --backing-format vhd clone.vhd',
    ],
    { lists },
  );
}

function backingFormats(): string[] {
  const all = createdFormats.flatMap((format) => creatorOf(format)?.backingFormats ?? []);
  return [...new Set([...all, 'vhd'])];
}

/** What `--option` takes for a format. */
function optionsOf(format: string): HelpList {
  const options = Object.entries(creatorOf(format)?.options ?? {});
  return {
    title: `Options of ${format}`,
    intro: 'as qemu-img create -o takes them; the first value is the default',
    rows: options.map(([name, values]) => [name, values.join(', ')]),
  };
}

function requestOf(image: string, size: string | undefined, options: CreateWords) {
  const { format, backing, backingFormat, force = false } = options;
  if (backing === undefined && backingFormat !== undefined) {
    throw new FusetapError('USAGE', '--backing-format is given, but no --backing', {
      hint: 'give the backing file, too',
    });
  }
  return {
    path: resolve(image),
    ...{ format, force, options: valuesOf(options.option ?? []) },
    // an empty image cannot be a disk
    size: size === undefined ? null : parseSize(size, 'SIZE', 1),
    backing: backing === undefined ? null : { name: backing, format: backingFormat ?? null },
  };
}

/** @throws FusetapError USAGE for a word that is not KEY=VALUE, and for a KEY that is given twice */
function valuesOf(words: readonly string[]): Record<string, string> {
  const values: Record<string, string> = {};
  for (const word of words) {
    const [name = '', ...rest] = word.split('=');
    if (name === '' || rest.length === 0) {
      throw new FusetapError('USAGE', `--option ${word} has no ${name === '' ? 'name' : 'value'}`, {
        hint: 'the form is KEY=VALUE',
      });
    }
    if (Object.hasOwn(values, name))
      throw new FusetapError('USAGE', `--option ${name} is given twice`, { hint: 'give it once' });
    values[name] = rest.join('=');
  }
  return values;
}
