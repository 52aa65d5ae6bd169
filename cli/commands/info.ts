/** `fusetap info`: describes an image. */
import type { Command } from 'commander';
import type { BackingPolicy } from '../../mount/control/interface.js';
import type { ChainLink, ImageInfo } from '../../mount/offline/describe-image.js';
import { attachOption } from '../attach-options.js';
import { IMAGE_OR_SPEC_HELP, imageWish } from '../offline/image-wish.js';
import { endHelp, type SharedOptions } from '../options.js';
import { type Column, humanSize, print, printJson, printNote, printPairs, printTable } from '../output.js';

type InfoOptions = SharedOptions & { backing?: BackingPolicy };

export function register(program: Command): void {
  const command = program
    .command('info')
    .summary('describe an image')
    .description(
      'Tells what an image is: its format, its sizes, what its header says, its snapshots and bitmaps, and the chain of ' +
        'files that it names, with whether they are there. Reads only, and needs no bus. An image in use is described ' +
        'too, with a remark on stderr.',
    )
    .argument('<IMAGE|SPEC>', IMAGE_OR_SPEC_HELP)
    .addOption(attachOption('backing'))
    .action(async (text: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<InfoOptions>();
      const { describeImage } = await import('../../mount/offline/describe-image.js');
      const { notes, facts, ...info } = await describeImage(imageWish(text), options.backing ?? 'same-directory');
      if (!options.quiet) for (const note of notes) printNote(note);
      if (options.json) printJson({ ...info, details: facts });
      else printInfo({ ...info, facts, notes });
    });
  endHelp(command, [
    'fusetap info disk.qcow2',
    "fusetap info --json disk.qcow2 | jq '.chain'",
    'fusetap info qcow2:tar:box.tar',
  ]);
}

type Facts = ImageInfo['facts'];
type Rows = Extract<Facts[string], readonly Readonly<Record<string, unknown>>[]>;

function printInfo({ image, format, size, fileBytes, allocatedBytes, facts, chain }: ImageInfo): void {
  const pairs: [string, string][] = [
    ['image', image],
    ['format', format],
    ['disk', size === null ? 'its size is not known' : bytesText(size)],
    [
      'file',
      `${bytesText(fileBytes)}${allocatedBytes === null ? '' : `, ${humanSize(allocatedBytes)} on its file system`}`,
    ],
  ];
  const tables: [string, Rows][] = [];
  for (const [key, value] of Object.entries(facts)) {
    if (isRows(value)) tables.push([wordsOf(key), value]);
    else if (isTold(value)) pairs.push([wordsOf(key), textOf(key, value)]);
  }
  printPairs([...pairs, ...chain.map((link): [string, string] => [wordsOf(link.role), linkText(link)])]);
  for (const [title, rows] of tables) {
    print('');
    print(`${title}:`);
    printRows(rows);
  }
}

function bytesText(bytes: number): string {
  return `${humanSize(bytes)} (${bytes} bytes)`;
}

function isRows(value: Facts[string]): value is Rows {
  return Array.isArray(value) && typeof value[0] === 'object';
}

/** What is not there is not told, except in JSON. */
function isTold(value: Facts[string]): boolean {
  return value !== null && value !== false && !(Array.isArray(value) && value.length === 0);
}

/** `clusterBytes` as `cluster size`, `l1Entries` as `L1 entries`. */
function wordsOf(key: string): string {
  const words = key.replace(/Bytes$/, 'Size').replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
  return words.replace(/^l(?=\d)/, 'L');
}

function textOf(key: string, value: unknown): string {
  if (value === true) return 'yes';
  if (Array.isArray(value)) return value.join(', ');
  return typeof value === 'number' && /size|bytes$/i.test(key) ? humanSize(value) : String(value);
}

function linkText({ name, format, path, size, error }: ChainLink): string {
  const facts = [format ?? 'no format', ...(size === null ? [] : [humanSize(size)])].join(', ');
  return `${name} (${facts}): ${error ?? path ?? ''}`;
}

function printRows(rows: Rows): void {
  const keys = Object.keys(rows[0] ?? {});
  const columns = keys.map((key): Column => ({ head: wordsOf(key).toUpperCase() }));
  const cells = rows.map((row) =>
    keys.map((key) => (row[key] === null ? '' : textOf(key, row[key] === false ? 'no' : row[key]))),
  );
  printTable(columns, cells);
}
