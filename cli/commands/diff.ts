/** `fusetap diff`: lists where a disk differs from its base, or from another disk. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import type { Change } from '../../mount/client/ranges/changes.js';
import { type DiskOptions, type FoundDisk, findDisk } from '../offline/found-disk.js';
import { endHelp } from '../options.js';
import { humanSize, print, printJson } from '../output.js';
import { addPictureOptions, checkTarget, type PictureOptions, writePicture } from '../picture/write-picture.js';

type DiffOptions = DiskOptions & PictureOptions;

export function register(program: Command): void {
  const command = program
    .command('diff')
    .summary('list where a disk differs from its base, or from another disk')
    .description(
      'Lists the ranges in which a disk differs from its base: of a VBD that was attached with --snapshot, from its ' +
        'image; of an image over a backing file, from that file. A range that was written with the bytes that it had ' +
        'counts too. With OTHER, it reads both disks, and lists where the bytes of OTHER differ from those of the first: ' +
        'so also a ram vbd and its image can be compared. A line OFFSET LENGTH data, or zeros, for each range, in bytes, ' +
        'and the sum in the last line. If programs write meanwhile, pause the vbd first; with OTHER, stop them. To keep ' +
        'the changes of a snapshot: fusetap save VBD FILE.',
    )
    .argument('<VBD|SPEC>', 'a vbd, as of fusetap show; else an image, whose format is recognized, or DRIVER:IMAGE')
    .argument('[OTHER]', 'another vbd or image');
  addPictureOptions(command).action(async (word: string, other: string | undefined, _: unknown, self: Command) => {
    const options = self.optsWithGlobals<DiffOptions>();
    if (options.svg !== undefined) await checkTarget(options);
    if (other === undefined) await showDifferences(await findOwn(word, options), options);
    else await showDifferences(await findBoth(word, other, options), options);
  });
  endHelp(command, [
    'fusetap diff xvda',
    'fusetap diff old.qcow2 new.qcow2',
    'fusetap diff xvda --svg changes.svg',
    "fusetap diff --json disk.img | jq '.dataBytes'",
  ]);
}

/** A disk, and where it differs from something. */
interface Differences {
  readonly disk: FoundDisk;
  readonly found: AsyncIterable<Change>;
  /** what a difference is, for a picture */
  readonly meaning: string;
  close(): Promise<void>;
}

async function findOwn(word: string, options: DiffOptions): Promise<Differences> {
  const disk = await findDisk(word, options);
  const meaning = disk.isSnapshot ? 'written since the attach' : 'differs from its backing file';
  return { disk, found: explained(disk.changes(), disk), meaning, close: () => disk.close() };
}

/** The error for an image without a base says what the user can do. */
async function* explained(changes: AsyncIterable<Change>, { vbd, name }: FoundDisk): AsyncGenerator<Change, void> {
  try {
    yield* changes;
  } catch (error) {
    if (vbd !== null || !(error instanceof FusetapError) || error.code !== 'UNSUPPORTED') throw error;
    throw new FusetapError('UNSUPPORTED', `${named(name)} has no backing file that it could differ from`, {
      hint: `compare it with another image: fusetap diff OTHER ${named(name)}`,
    });
  }
}

async function findBoth(first: string, second: string, options: DiffOptions): Promise<Differences> {
  const { openToCompare } = await import('../offline/open-to-compare.js');
  const { compareImages } = await import('../../mount/offline/compare-images.js');
  const [one, other] = await openToCompare([first, second], options);
  return {
    disk: other.disk,
    found: compareImages(one.image, other.image),
    meaning: `differs from ${first}`,
    close: async () => {
      await one.image.close();
      await other.image.close();
    },
  };
}

async function showDifferences(differences: Differences, options: DiffOptions): Promise<void> {
  try {
    if (options.svg !== undefined) await printPicture(differences, options);
    else if (options.json) await printDocument(differences);
    else await printLines(differences.found);
  } finally {
    await differences.close();
  }
}

async function printPicture({ disk, found, meaning }: Differences, options: DiffOptions): Promise<void> {
  const { pictureOf } = await import('../picture/picture-of.js');
  const { name, sizeBytes } = disk;
  const partitions = await disk.partitions();
  const extents = disk.extents();
  await writePicture(
    await pictureOf({ name, sizeBytes, partitions, extents, changed: found, changes: meaning }),
    options,
  );
}

/** How many bytes differ. */
class Sum {
  dataBytes = 0;
  zerosBytes = 0;

  add({ kind, length }: Change): void {
    if (kind === 'data') this.dataBytes += length;
    else this.zerosBytes += length;
  }
}

async function printLines(found: AsyncIterable<Change>): Promise<void> {
  const sum = new Sum();
  for await (const change of found) {
    print(`${change.offset} ${change.length} ${change.kind}`);
    sum.add(change);
  }
  const { dataBytes, zerosBytes } = sum;
  const total = dataBytes + zerosBytes;
  print(`total ${total} (${humanSize(total)}): ${dataBytes} data, ${zerosBytes} zeros`);
}

async function printDocument({ disk, found }: Differences): Promise<void> {
  const sum = new Sum();
  const all: Change[] = [];
  for await (const change of found) {
    all.push(change);
    sum.add(change);
  }
  const { vbd, sizeBytes: size } = disk;
  printJson({ bus: vbd?.bus ?? null, vdev: vbd?.vdev ?? null, size, ...sum, changes: all });
}
