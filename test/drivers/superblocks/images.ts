/** Small images of all kinds that superblocks are read of, each made by its own mkfs, with what blkid(8) says of them. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readSuperblock, type Superblock } from '../../../drivers/superblocks/index.js';
import { parseProbe } from '../../../mount/file-system/tools/blkid.js';

const MIB = 1 << 20;
const UUID = '3b1f0a52-95f0-4c3e-8d4e-0f1a2b3c4d5e';

export interface Recipe {
  readonly name: string;
  readonly program: string;
  readonly megabytes: number;
  /** of the program; IMAGE and DIR stand for the image and an empty directory */
  readonly words: readonly string[];
}

const recipe = (name: string, megabytes: number, program: string, ...words: string[]): Recipe => {
  return { name, megabytes, program, words: words.includes('IMAGE') ? words : [...words, 'IMAGE'] };
};

/** With names of all kinds: blanks, umlauts, quotes, slashes, control characters. */
export const RECIPES: readonly Recipe[] = [
  recipe('ext2', 4, 'mkfs.ext4', '-q', '-F', '-t', 'ext2', '-L', 'plain', '-U', UUID),
  recipe('ext3', 16, 'mkfs.ext4', '-q', '-F', '-t', 'ext3', '-L', 'a b/c'),
  recipe('ext4', 16, 'mkfs.ext4', '-q', '-F', '-L', 'Größe "x"'),
  recipe('ext4 without a label', 16, 'mkfs.ext4', '-q', '-F', '-O', '^metadata_csum'),
  recipe('ext4 with control characters', 8, 'mkfs.ext4', '-q', '-F', '-L', '\x01\x1b[31m\\x20 '),
  recipe('journal', 8, 'mkfs.ext4', '-q', '-F', '-O', 'journal_dev', '-b', '1024', '-L', 'log'),
  recipe('xfs', 320, 'mkfs.xfs', '-q', '-f', '-L', 'daten/1'),
  recipe('xfs without checksums', 320, 'mkfs.xfs', '-q', '-f', '-m', 'crc=0'),
  recipe('btrfs', 128, 'mkfs.btrfs', '-q', '-f', '-L', 'a long label with blanks, ümläuts and "quotes"'),
  recipe('btrfs xxhash', 128, 'mkfs.btrfs', '-q', '-f', '--csum', 'xxhash', '-L', 'x'),
  recipe('fat12', 2, 'mkfs.fat', '-n', 'EFI SYS'),
  recipe('floppy', 1, 'mkfs.fat', '-n', 'FLOPPY'),
  recipe('fat16', 32, 'mkfs.fat', '-F', '16', '-i', 'deadbeef', '-n', 'BOOT'),
  recipe('fat32', 64, 'mkfs.fat', '-F', '32', '-n', 'A B'),
  recipe('fat32 without a label', 64, 'mkfs.fat', '-F', '32'),
  recipe('exfat', 32, 'mkfs.exfat', '-L', 'kämera 1'),
  recipe('exfat without a label', 32, 'mkfs.exfat'),
  recipe('ntfs', 32, 'mkfs.ntfs', '-q', '-F', '-L', 'Größe / 1'),
  recipe('ntfs without a label', 32, 'mkfs.ntfs', '-q', '-F'),
  recipe('iso', 0, 'genisoimage', '-quiet', '-V', 'CDROM 1', '-o', 'IMAGE', 'DIR'),
  recipe(
    'joliet',
    0,
    'genisoimage',
    '-quiet',
    '-J',
    '-input-charset',
    'utf-8',
    '-V',
    'Größe_2 und ein langer Name',
    '-o',
    'IMAGE',
    'DIR',
  ),
  recipe('squashfs', 0, 'mksquashfs', 'DIR', 'IMAGE', '-quiet', '-no-progress', '-noappend'),
  recipe('swap', 1, 'mkswap', '-q', '-L', 'swap space'),
  recipe('swap of large pages', 2, 'mkswap', '-q', '-p', '65536', '-L', 'big'),
  recipe(
    'luks1',
    16,
    'cryptsetup',
    'luksFormat',
    '-q',
    '--type',
    'luks1',
    '--pbkdf-force-iterations',
    '1000',
    '--key-file',
    '/proc/self/exe',
    '--keyfile-size',
    '64',
    'IMAGE',
  ),
  recipe(
    'luks2',
    32,
    'cryptsetup',
    'luksFormat',
    '-q',
    '--type',
    'luks2',
    '--label',
    'secret',
    '--pbkdf',
    'pbkdf2',
    '--pbkdf-force-iterations',
    '1000',
    '--key-file',
    '/proc/self/exe',
    '--keyfile-size',
    '64',
    'IMAGE',
  ),
];

export interface Made {
  readonly bytes: Buffer;
  /** what blkid says */
  readonly known: Known;
}

export interface Known {
  readonly type: string | null;
  readonly label: string | null;
  readonly uuid: string | null;
}

/** Makes the image in a directory of its own, which is gone afterwards. */
export function make({ program, words, megabytes }: Recipe): Made {
  const directory = mkdtempSync(join(process.env.TMPDIR ?? '/tmp', 'superblock-'));
  try {
    const image = join(directory, 'image');
    const empty = mkdtempSync(join(directory, 'empty-'));
    writeFileSync(join(empty, 'file'), 'some bytes');
    if (megabytes > 0) {
      writeFileSync(image, '');
      truncateSync(image, megabytes * MIB);
    }
    const filled = words.map((word) => (word === 'IMAGE' ? image : word === 'DIR' ? empty : word));
    execFileSync(program, filled, { stdio: ['ignore', 'ignore', 'pipe'] });
    return { bytes: readFileSync(image), known: byBlkid(image) };
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Its label has its bytes as characters, since it may be no UTF-8. */
export function byBlkid(image: string): Known {
  let text = '';
  try {
    text = execFileSync('blkid', ['-p', '-o', 'udev', image], {
      encoding: 'latin1',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    // it found nothing, or a conflict
  }
  const { type, label, uuid } = parseProbe(text);
  return { type, label, uuid };
}

/** Reads with a check of each read: all must be inside the disk. */
export async function read(bytes: Buffer): Promise<Superblock | null> {
  return await readSuperblock(async (offset, length) => {
    if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
      throw new RangeError(`read of ${length} bytes at ${offset}, of ${bytes.length}`);
    }
    return bytes.subarray(offset, offset + length);
  }, bytes.length);
}

export async function readKnown(bytes: Buffer): Promise<Known> {
  const found = await read(bytes);
  return { type: found?.type ?? null, label: found?.label?.toString('latin1') ?? null, uuid: found?.uuid ?? null };
}
