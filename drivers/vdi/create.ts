/**
 * Makes VDIs.
 *
 *      header │ map │ blocks of 1 MiB: none, or all of a static one, which are holes
 */
import { randomBytes } from 'node:crypto';
import type { Creator, NewImage } from '../creating/creator.js';
import { newFileDisk } from '../creating/new-file.js';
import { chosen, takeOnly } from '../creating/options.js';
import { FusetapError } from '../errors.js';

const SECTOR_BYTES = 512;
const BLOCK_BYTES = 1 << 20;
const MAP_AT = 512;
const HEADER_BYTES = 0x190;
const NONE = 0xffff_ffff;
/** so that the map has at most 64 MiB */
const MOST_BYTES = 2 ** 44;

const creator = {
  check(image) {
    return planImage(image).size;
  },
  async write(fd, image) {
    const { size, isStatic, blocks } = planImage(image);
    const dataAt = Math.ceil((MAP_AT + 4 * blocks) / BLOCK_BYTES) * BLOCK_BYTES;
    const end = dataAt + (isStatic ? blocks * BLOCK_BYTES : 0);
    const head = Buffer.alloc(MAP_AT + 4 * blocks);
    head.write('<<< fusetap VirtualBox Disk Image >>>\n', 0, 'latin1');
    const words: readonly (readonly [at: number, value: number])[] = [
      [64, 0xbeda_107f],
      [68, 0x0001_0001],
      [72, HEADER_BYTES],
      [76, isStatic ? 2 : 1],
      [340, MAP_AT],
      [344, dataAt],
      [360, SECTOR_BYTES],
      [376, BLOCK_BYTES],
      [384, blocks],
      [388, isStatic ? blocks : 0],
    ];
    for (const [at, value] of words) head.writeUInt32LE(value, at);
    head.writeBigUInt64LE(BigInt(size), 368);
    randomBytes(16).copy(head, 392);
    randomBytes(16).copy(head, 408);
    for (let block = 0; block < blocks; block++) head.writeUInt32LE(isStatic ? block : NONE, MAP_AT + 4 * block);
    const file = await newFileDisk(fd, end);
    await file.write(head, 0);
  },
} satisfies Creator;

export default creator;

function planImage({ size: wanted, options }: NewImage): { size: number; isStatic: boolean; blocks: number } {
  takeOnly('vdi', options, ['static']);
  const isStatic = chosen(options, 'static', ['off', 'on']) === 'on';
  const size = Math.ceil(wanted / SECTOR_BYTES) * SECTOR_BYTES;
  if (size > MOST_BYTES)
    throw new FusetapError('USAGE', 'the disk of a VDI has at most 16 TiB here', { hint: 'give a smaller SIZE' });
  return { size, isStatic, blocks: Math.ceil(size / BLOCK_BYTES) };
}
