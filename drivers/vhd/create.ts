/**
 * Makes VHDs.
 *
 *      fixed       the disk │ footer
 *      others      copy of the footer │ header │ table │ names of the parent │ footer
 */
import { randomBytes } from 'node:crypto';
import { posix } from 'node:path';
import type { Creator, NewImage } from '../creating/creator.js';
import { newFileDisk } from '../creating/new-file.js';
import { chosen, takeOnly } from '../creating/options.js';
import { FusetapError } from '../errors.js';
import { RAW_PARENT } from './dynamic-header.js';
import { checksumOf, FOOTER_BYTES, roundUp } from './footer.js';

const SECTOR_BYTES = 512;
const HEADER_BYTES = 1024;
const TABLE_AT = FOOTER_BYTES + HEADER_BYTES;
const BLOCK_BYTES = 2 << 20;
/** as XenServer has it: block numbers of sectors have 32 bits, and bitmaps need room */
const MOST_BYTES = 2040 * 2 ** 30;
const SUBFORMATS = ['dynamic', 'fixed'] as const;
const TYPE = { fixed: 2, dynamic: 3, differencing: 4 };
/** 2000-01-01 in seconds since 1970 */
const EPOCH = 946_684_800;

const creator = {
  check(image) {
    return planImage(image).size;
  },
  async write(fd, image) {
    const plan = planImage(image);
    const footer = footerBytes(plan);
    const end = plan.type === 'fixed' ? plan.size : plan.headers.length;
    const file = await newFileDisk(fd, end + FOOTER_BYTES);
    if (plan.type !== 'fixed') {
      footer.copy(plan.headers);
      await file.write(plan.headers, 0);
    }
    await file.write(footer, end);
  },
} satisfies Creator;

export default creator;

interface Plan {
  readonly type: keyof typeof TYPE;
  readonly size: number;
  /** all before the footer at the end; the copy of the footer is not filled in */
  readonly headers: Buffer;
}

function planImage({ size: wanted, backing, options }: NewImage): Plan {
  takeOnly('vhd', options, ['subformat']);
  const subformat = chosen(options, 'subformat', SUBFORMATS);
  const size = roundUp(wanted, SECTOR_BYTES);
  if (size > MOST_BYTES)
    throw new FusetapError('USAGE', 'the disk of a VHD has at most 2040 GiB', { hint: 'give a smaller SIZE' });
  if (subformat === 'dynamic') {
    return { type: backing === null ? 'dynamic' : 'differencing', size, headers: headersOf(size, backing) };
  }
  if (backing === null) return { type: 'fixed', size, headers: Buffer.alloc(0) };
  throw new FusetapError('USAGE', 'a fixed VHD has no backing file', { hint: 'omit subformat=fixed' });
}

function headersOf(size: number, backing: NewImage['backing']): Buffer {
  const blocks = Math.ceil(size / BLOCK_BYTES);
  const table = Buffer.alloc(roundUp(4 * blocks, SECTOR_BYTES), 0xff);
  const header = Buffer.alloc(HEADER_BYTES);
  header.write('cxsparse', 0, 'latin1');
  header.fill(0xff, 8, 16);
  header.writeBigUInt64BE(BigInt(TABLE_AT), 16);
  header.writeUInt32BE(0x0001_0000, 24);
  header.writeUInt32BE(blocks, 28);
  header.writeUInt32BE(BLOCK_BYTES, 32);
  const names = backing === null ? [] : nameParent(header, backing, TABLE_AT + table.length);
  header.writeUInt32BE(checksumOf(header, 36), 36);
  return Buffer.concat([Buffer.alloc(FOOTER_BYTES), header, table, ...names]);
}

/** Writes into a header what the parent is. @returns the names that follow the table */
function nameParent(
  header: Buffer,
  { name, format, identity = null }: NonNullable<NewImage['backing']>,
  at: number,
): Buffer[] {
  // an id of zeros would say that the parent is raw
  if (format !== 'raw' && (identity === null || identity === RAW_PARENT)) {
    throw new FusetapError('FAILED', 'the backing file has no unique id', { hint: 'use a VHD, or a raw image' });
  }
  if (identity !== null) header.write(identity, 40, 'hex');
  // 255 characters, and a zero
  Buffer.from(posix.basename(name).slice(0, 255), 'utf16le').swap16().copy(header, 64);
  const isAbsolute = name.startsWith('/');
  const path = isAbsolute || name.startsWith('./') || name.startsWith('../') ? name : `./${name}`;
  const locators: [code: string, bytes: Buffer][] = [
    [isAbsolute ? 'W2ku' : 'W2ru', Buffer.from(path.replaceAll('/', '\\'), 'utf16le')],
    ['MacX', Buffer.from(`file://${path.split('/').map(encodeURIComponent).join('/')}`, 'latin1')],
  ];
  let end = at;
  return locators.map(([code, bytes], i) => {
    const space = roundUp(bytes.length, SECTOR_BYTES);
    const entry = 576 + i * 24;
    header.write(code, entry, 'latin1');
    header.writeUInt32BE(space, entry + 4);
    header.writeUInt32BE(bytes.length, entry + 8);
    header.writeBigUInt64BE(BigInt(end), entry + 16);
    end += space;
    return Buffer.concat([bytes, Buffer.alloc(space - bytes.length)]);
  });
}

function footerBytes({ type, size }: Plan): Buffer {
  const footer = Buffer.alloc(FOOTER_BYTES);
  footer.write('conectix', 0, 'latin1');
  footer.writeUInt32BE(2, 8);
  footer.writeUInt32BE(0x0001_0000, 12);
  footer.writeBigUInt64BE(type === 'fixed' ? 0xffff_ffff_ffff_ffffn : BigInt(FOOTER_BYTES), 16);
  footer.writeUInt32BE(Math.max(0, Math.floor(Date.now() / 1000) - EPOCH), 24);
  // QEMU before 10.1 reads the size of others from the geometry
  footer.write('win ', 28, 'latin1');
  footer.writeUInt32BE(0x000a_0000, 32);
  footer.write('Wi2k', 36, 'latin1');
  footer.writeBigUInt64BE(BigInt(size), 40);
  footer.writeBigUInt64BE(BigInt(size), 48);
  const [cylinders, heads, sectors] = geometryOf(size / SECTOR_BYTES);
  footer.writeUInt16BE(cylinders, 56);
  footer.writeUInt8(heads, 58);
  footer.writeUInt8(sectors, 59);
  footer.writeUInt32BE(TYPE[type], 60);
  randomBytes(16).copy(footer, 68);
  footer.writeUInt32BE(checksumOf(footer, 64), 64);
  return footer;
}

/** The geometry that the specification computes from a size: cylinders, heads, sectors of a track. */
function geometryOf(total: number): [number, number, number] {
  const sectors = Math.min(total, 65_535 * 16 * 255);
  if (sectors >= 65_535 * 16 * 63) return [Math.floor(sectors / 255 / 16), 16, 255];
  let [track, tracks] = [17, Math.floor(sectors / 17)];
  let heads = Math.max(4, Math.floor((tracks + 1023) / 1024));
  if (tracks >= heads * 1024 || heads > 16) [track, heads, tracks] = [31, 16, Math.floor(sectors / 31)];
  if (tracks >= heads * 1024) [track, heads, tracks] = [63, 16, Math.floor(sectors / 63)];
  return [Math.floor(tracks / heads), heads, track];
}
