/** `fusetap map`: tells what the ranges of a disk are, and in which file. */
import type { Command } from 'commander';
import type { MapExtent } from '../../mount/client/ranges/map.js';
import { attachOption } from '../attach-options.js';
import { type DiskOptions, type FoundDisk, findDisk } from '../offline/found-disk.js';
import { endHelp } from '../options.js';
import { type Column, printJson, printTable } from '../output.js';
import { addPictureOptions, checkTarget, type PictureOptions, writePicture } from '../picture/write-picture.js';

type MapOptions = DiskOptions & PictureOptions;

const COLUMNS: readonly Column[] = [
  { head: 'START', align: 'right' },
  { head: 'LENGTH', align: 'right' },
  { head: 'DEPTH', align: 'right' },
  { head: 'KIND' },
  { head: 'OFFSET', align: 'right' },
  { head: 'FILE' },
];

export function register(program: Command): void {
  const command = program
    .command('map')
    .summary('tell in which files the bytes of a disk are')
    .description(
      'Tells what each range of a disk is, as qemu-img map does: data, zeros, compressed, allocated (a place for data, ' +
        'which is still zeros), or absent (no image of the chain has it: it reads as zeros); in which image of the chain ' +
        'it is (DEPTH 0: the image itself, 1: its backing file or base); and where in a file the bytes are, if they are ' +
        'plain there. The disk is that of a VBD, or of an image that is opened for reading. If programs write to the ' +
        'vbd meanwhile, pause it first.',
    )
    .argument('<VBD|SPEC>', 'a vbd, as of fusetap show; else an image, whose format is recognized, or DRIVER:IMAGE')
    .addOption(attachOption('option'))
    .addOption(attachOption('backing'));
  addPictureOptions(command).action(async (word: string, _: unknown, self: Command) => {
    const options = self.optsWithGlobals<MapOptions>();
    if (options.svg !== undefined) return await printPicture(word, options);
    const extents = await extentsOf(await findDisk(word, options));
    if (options.json) printJson(extents.map(asQemuDoes));
    else printTable(COLUMNS, extents.map(rowOf));
  });
  endHelp(command, [
    'fusetap map xvda',
    'fusetap map disk.qcow2',
    'fusetap map disk.qcow2 --svg disk.svg',
    "fusetap map --json disk.qcow2 | jq 'map(select(.data).length) | add'",
  ]);
}

/** All extents of a disk, which is closed then. */
async function extentsOf(disk: FoundDisk): Promise<MapExtent[]> {
  const extents: MapExtent[] = [];
  try {
    for await (const extent of disk.extents()) extents.push(extent);
  } finally {
    await disk.close();
  }
  return extents;
}

/** @throws as findDisk; FusetapError BUSY if the picture's file exists */
async function printPicture(word: string, options: MapOptions): Promise<void> {
  await checkTarget(options);
  const disk = await findDisk(word, options);
  try {
    const { name, sizeBytes, isSnapshot } = disk;
    const { pictureOf } = await import('../picture/picture-of.js');
    const text = await pictureOf({
      ...{ name, sizeBytes, partitions: await disk.partitions(), extents: disk.extents() },
      changed: isSnapshot ? disk.changes() : null,
      changes: isSnapshot ? 'written since the attach' : null,
    });
    await writePicture(text, options);
  } finally {
    await disk.close();
  }
}

/** qemu-img omits what is not known. */
function asQemuDoes({ offset, filename, ...extent }: MapExtent): object {
  return offset === null ? extent : { ...extent, offset, ...(filename !== null && { filename }) };
}

function rowOf(extent: MapExtent): string[] {
  const { start, length, depth, offset, filename } = extent;
  return [String(start), String(length), String(depth), kindOf(extent), String(offset ?? '-'), filename ?? '-'];
}

function kindOf({ present, zero, data, compressed }: MapExtent): string {
  if (!present) return 'absent';
  if (zero) return data ? 'allocated' : 'zeros';
  return compressed ? 'compressed' : 'data';
}
