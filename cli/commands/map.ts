/** `fusetap map`: tells what the ranges of a disk are, and in which file. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { isPath, type LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import type { MapExtent } from '../../mount/client/ranges/map.js';
import type { BackingPolicy } from '../../mount/control/interface.js';
import { attachOption } from '../attach-options.js';
import { attachRequest } from '../attach-request.js';
import { locateVbd } from '../locate-vbd.js';
import { isOnlyImage } from '../offline/image-wish.js';
import { endHelp, type SharedOptions } from '../options.js';
import { type Column, printJson, printTable } from '../output.js';

interface MapOptions extends SharedOptions {
  option?: string[];
  backing?: BackingPolicy;
}

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
    .addOption(attachOption('backing'))
    .action(async (word: string, _: unknown, self: Command) => {
      const options = self.optsWithGlobals<MapOptions>();
      const extents: MapExtent[] = [];
      for await (const extent of await findExtents(word, options)) extents.push(extent);
      if (options.json) printJson(extents.map(asQemuDoes));
      else printTable(COLUMNS, extents.map(rowOf));
    });
  endHelp(command, [
    'fusetap map xvda',
    'fusetap map disk.qcow2',
    "fusetap map --json disk.qcow2 | jq 'map(select(.data).length) | add'",
  ]);
}

async function findExtents(word: string, options: MapOptions): Promise<AsyncIterable<MapExtent>> {
  const located = await findVbd(word, options);
  if (located !== null) {
    const { map } = await import('../../mount/client/ranges/map.js');
    return map(located.place, located.vbd.vdev);
  }
  const { request } = attachRequest([word], options);
  if (request.vdev !== null) {
    throw new FusetapError('USAGE', `${word} has a place on a bus`, { hint: 'give only the image' });
  }
  const { driver, image, disk, backing } = request;
  const { mapImage } = await import('../../mount/offline/map-image.js');
  const { options: driverOptions } = request;
  return mapImage({ driver, image, disk, backing, options: driverOptions, isOnlyImage: isOnlyImage(word) });
}

/** The vbd that a word names; null if it can only be an image. */
async function findVbd(word: string, options: MapOptions): Promise<LocatedVbd | null> {
  // these are of an image
  if (options.option !== undefined || options.backing !== undefined) return null;
  try {
    return await locateVbd(word, options);
  } catch (error) {
    const mayBeImage = options.bus === undefined && isPath(word);
    if (mayBeImage && error instanceof FusetapError && error.code === 'NOT_FOUND') return null;
    throw error;
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
