/** Disks in memory with partition tables: made by sfdisk, or byte by byte. */
import { execFileSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { type PartitionTable, readPartitions, type SectorBytes } from '../../../drivers/partitions/index.js';
import { SFDISK, type SfdiskPartition } from './sfdisk.js';

export const SECTOR = 512;
export const LINUX = '0FC63DAF-8483-4772-8E79-3D69D8477DE4';

/** A disk that sfdisk made of a script, and what it then reads from it. */
export function bySfdisk(script: string, sizeBytes: number): { disk: Buffer; partitions: SfdiskPartition[] } {
  const directory = mkdtempSync(join(tmpdir(), 'sfdisk-'));
  try {
    const path = join(directory, 'disk');
    const fd = openSync(path, 'w');
    ftruncateSync(fd, sizeBytes);
    closeSync(fd);
    const [program = '', ...words] = SFDISK;
    execFileSync(program, [...words, '-q', path], { input: script, stdio: ['pipe', 'ignore', 'inherit'] });
    const json = execFileSync('sfdisk', ['--json', path], { encoding: 'utf8' });
    const { partitiontable } = JSON.parse(json) as { partitiontable: { partitions?: SfdiskPartition[] } };
    return { disk: readFileSync(path), partitions: partitiontable.partitions ?? [] };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Reads the table of a disk; a read outside of it, or of more than a megabyte, is a failure. */
export function tableOf(
  disk: Buffer,
  sizeBytes = disk.byteLength,
  sectorBytes: SectorBytes | null = null,
): Promise<PartitionTable> {
  return readPartitions(
    async (offset, length) => {
      const isInside = Number.isSafeInteger(offset) && offset >= 0 && length > 0 && offset + length <= sizeBytes;
      if (!isInside || length > 1 << 20) throw new Error(`read of ${length} bytes at ${offset} of ${sizeBytes}`);
      const bytes = Buffer.alloc(length);
      // a disk may be larger than its bytes: the rest is zeros
      disk.copy(bytes, 0, Math.min(offset, disk.byteLength), offset + length);
      return bytes;
    },
    sizeBytes,
    sectorBytes,
  );
}

export interface MbrEntry {
  type: number;
  start: number;
  count: number;
  boot?: number;
}

/** Writes a sector with entries of an MBR. */
export function putMbr(disk: Buffer, sector: number, entries: readonly MbrEntry[]): Buffer {
  entries.forEach(({ type, start, count, boot = 0 }, i) => {
    const at = sector * SECTOR + 446 + 16 * i;
    disk.writeUInt8(boot, at);
    disk.writeUInt8(type, at + 4);
    disk.writeUInt32LE(start, at + 8);
    disk.writeUInt32LE(count, at + 12);
  });
  disk.writeUInt16BE(0x55aa, sector * SECTOR + 510);
  return disk;
}

export interface GptEntry {
  first: number | bigint;
  last: number | bigint;
  name?: string;
}

/** A disk with a GPT and its backup; sectors of any size. */
export function gptDisk(sizeBytes: number, entries: readonly GptEntry[], sectorBytes = SECTOR): Buffer {
  const disk = putMbr(Buffer.alloc(sizeBytes), 0, [{ type: 0xee, start: 1, count: sizeBytes / SECTOR - 1 }]);
  const last = sizeBytes / sectorBytes - 1;
  const array = Buffer.alloc(128 * 128);
  const arraySectors = array.byteLength / sectorBytes;
  entries.forEach(({ first, last, name = '' }, i) => {
    guidBytes(LINUX).copy(array, i * 128);
    array.fill(i + 1, i * 128 + 16, i * 128 + 32);
    array.writeBigUInt64LE(BigInt(first), i * 128 + 32);
    array.writeBigUInt64LE(BigInt(last), i * 128 + 40);
    array.write(name, i * 128 + 56, 72, 'utf16le');
  });
  const usable: [number, number] = [2 + arraySectors, last - arraySectors - 1];
  putHeader(disk, { sectorBytes, lba: 1, other: last, arrayLba: 2, usable }, array);
  putHeader(disk, { sectorBytes, lba: last, other: 1, arrayLba: last - arraySectors, usable }, array);
  return disk;
}

interface HeaderPlace {
  sectorBytes: number;
  lba: number;
  other: number;
  arrayLba: number;
  usable: [number, number];
}

function putHeader(disk: Buffer, place: HeaderPlace, array: Buffer): void {
  const at = place.lba * place.sectorBytes;
  disk.write('EFI PART', at, 'latin1');
  disk.writeUInt32LE(0x10000, at + 8);
  disk.writeUInt32LE(92, at + 12);
  const lbas = [place.lba, place.other, ...place.usable];
  lbas.forEach((lba, i) => {
    disk.writeBigUInt64LE(BigInt(lba), at + 24 + 8 * i);
  });
  disk.writeBigUInt64LE(BigInt(place.arrayLba), at + 72);
  disk.writeUInt32LE(array.byteLength / 128, at + 80);
  disk.writeUInt32LE(128, at + 84);
  disk.writeUInt32LE(crc32(array), at + 88);
  array.copy(disk, place.arrayLba * place.sectorBytes);
  signHeader(disk, at);
}

/** Makes the checksum of a header right again, so that what was changed in it is looked at. */
export function signHeader(disk: Buffer, at: number): void {
  const length = Math.min(disk.readUInt32LE(at + 12), disk.byteLength - at);
  disk.writeUInt32LE(0, at + 16);
  disk.writeUInt32LE(crc32(disk.subarray(at, at + length)), at + 16);
}

/** A GUID as it lies on a disk. */
export function guidBytes(guid: string): Buffer {
  const bytes = Buffer.from(guid.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** Why the windows of a table cannot be served; null where they can. */
export function flawOf({ partitions }: PartitionTable, sizeBytes: number): string | null {
  let end = 0;
  for (const { number, offset, size, readOnly } of [...partitions].sort((a, b) => a.offset - b.offset)) {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(size) || size <= 0) return `${number}: no window`;
    if (offset + size > sizeBytes) return `${number} ends outside`;
    if (readOnly) continue;
    if (offset < end) return `${number} begins in another`;
    end = offset + size;
  }
  return new Set(partitions.map(({ number }) => number)).size === partitions.length ? null : 'a number comes twice';
}
