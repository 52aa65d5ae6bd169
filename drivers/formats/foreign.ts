/**
 * Recognizes images that are not raw by their first and last bytes. Such an image is refused when it is attached as raw,
 * because one write can ruin it.
 *
 * The bytes never choose a driver: a guest that writes another format's header into its own raw disk would choose it.
 *
 * Formats whose bytes are a usable disk (ISO 9660, squashfs, LUKS, tar) are not listed.
 */
import { FusetapError } from '../errors.js';
import { named } from '../quote.js';

/** bytes that recognizeForeign needs from each end of an image */
export const PROBED_BYTES = 512;

export interface ForeignFormat {
  /** for example `a qcow2 image` */
  readonly is: string;
  /** what to do with it; IMAGE stands for its path */
  readonly hint: string;
  /** what QEMU calls the format; undefined if it is none of QEMU's */
  readonly format?: string;
}

interface Magic extends ForeignFormat {
  /** bytes from the start, or from the end if negative */
  readonly at: number;
  /** in hexadecimal, or as text */
  readonly bytes: Buffer;
}

const hex = (digits: string): Buffer => Buffer.from(digits.replaceAll(' ', ''), 'hex');
const text = (words: string): Buffer => Buffer.from(words, 'latin1');
type Way = Pick<ForeignFormat, 'hint' | 'format'>;
const magic = (at: number, bytes: Buffer, is: string, way: Way): Magic => ({ at, bytes, is, ...way });

const CONVERT = 'convert it: qemu-img convert -O raw IMAGE disk.img';
/** The way for a format of QEMU. @param driver reads some variants; a few bytes do not tell which one it is */
const qemu = (format: string, driver?: string): Way => ({
  format,
  hint: driver === undefined ? CONVERT : `use ${driver}:IMAGE, or ${CONVERT}`,
});
const QCOW2 = qemu('qcow2', 'qcow2');
const VHD = qemu('vpc', 'vhd');
const VHDX = qemu('vhdx', 'vhdx');
const VMDK = qemu('vmdk', 'vmdk');
const VDI = qemu('vdi', 'vdi');
const other = (hint: string): Way => ({ hint });
const unpack = (program: string): Way => other(`unpack it first: ${program} < IMAGE > disk.img`);

const MAGICS: readonly Magic[] = [
  magic(0, hex('51 46 49 fb'), 'a qcow2 image', QCOW2),
  magic(0, text('QED\0'), 'a QED image', qemu('qed')),
  magic(0, text('conectix'), 'a dynamic VHD image', VHD),
  // a fixed VHD is raw data with a footer, which old writers made one byte shorter
  magic(-512, text('conectix'), 'a fixed VHD image', VHD),
  magic(-511, text('conectix'), 'a fixed VHD image', VHD),
  magic(0, text('vhdxfile'), 'a VHDX image', VHDX),
  magic(0, text('KDMV'), 'a VMDK image', VMDK),
  magic(0, text('COWD'), 'a VMDK image', VMDK),
  magic(0, hex('be ba fe ca 00 00 00 00'), 'a VMDK image (seSparse)', qemu('vmdk')),
  magic(0, text('# Disk DescriptorFile'), 'the descriptor of a VMDK image', VMDK),
  magic(64, hex('7f 10 da be'), 'a VDI image', VDI),
  magic(0, text('WithoutFreeSpace'), 'a Parallels image', qemu('parallels')),
  magic(0, text('WithouFreSpacExt'), 'a Parallels image', qemu('parallels')),
  magic(-512, text('koly'), 'an Apple disk image (DMG)', qemu('dmg')),
  magic(0, hex('45 56 46 09 0d 0a ff 00'), 'an EWF image (E01)', other('export it: ewfexport -f raw IMAGE')),
  magic(0, hex('3a ff 26 ed'), 'an Android sparse image', other('unpack it first: simg2img IMAGE disk.img')),
  magic(0, hex('1f 8b 08'), 'compressed with gzip', unpack('gzip -dc')),
  magic(0, hex('fd 37 7a 58 5a 00'), 'compressed with xz', unpack('xz -dc')),
  magic(0, hex('28 b5 2f fd'), 'compressed with zstd', unpack('zstd -dc')),
  magic(0, hex('04 22 4d 18'), 'compressed with lz4', unpack('lz4 -dc')),
  magic(0, hex('42 5a 68 39 31 41 59 26 53 59'), 'compressed with bzip2', unpack('bzip2 -dc')),
  magic(0, hex('50 4b 03 04'), 'a ZIP archive', other('unpack it first: unzip IMAGE')),
  magic(0, hex('37 7a bc af 27 1c'), 'a 7z archive', other('unpack it first: 7z x IMAGE')),
];

/**
 * Recognizes an image that is not raw.
 * @param first its first PROBED_BYTES, fewer if it is smaller
 * @param last its last PROBED_BYTES, fewer if it is smaller
 * @param preferred the format to answer if its marks are there, among others: a guest can write those of another format
 *   to the end that has no header
 * @returns null if nothing says that it is not raw
 */
export function recognizeForeign(first: Uint8Array, last: Uint8Array, preferred?: string): ForeignFormat | null {
  const found = MAGICS.filter(({ at, bytes }) => {
    const from = at < 0 ? last.length + at : at;
    if (from < 0) return false;
    return bytes.equals((at < 0 ? last : first).subarray(from, from + bytes.length));
  });
  return found.find(({ format }) => format !== undefined && format === preferred) ?? found[0] ?? null;
}

/** The refusal of such an image. @param path absolute */
export function notRaw(path: string, { is, hint }: ForeignFormat): FusetapError {
  const way = hint.replaceAll('IMAGE', () => named(path));
  return new FusetapError('USAGE', `${named(path)} is not raw: it is ${is}`, {
    hint: `${way}; to use its bytes as they are: fusetap attach --raw`,
    path,
  });
}
