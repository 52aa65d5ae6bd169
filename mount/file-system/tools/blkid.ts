/** What blkid(8) finds in a file: the type of its file system, its label and its UUID. The file may contain anything. */
import { FusetapError } from '../../../drivers/errors.js';
import { isInstalled, runTool } from './run-tool.js';

/** A key is null if blkid did not find it. */
export interface Content {
  /** as blkid(8) names it, for example `ext4`, `vfat`, `crypto_LUKS` */
  readonly type: string | null;
  /** whether it is a file system, and not for example swap space or an encrypted volume */
  readonly isFileSystem: boolean;
  readonly label: string | null;
  readonly uuid: string | null;
}

export const NOTHING_FOUND: Content = { type: null, isFileSystem: false, label: null, uuid: null };

/** Probes a file. @throws FusetapError if blkid is not installed */
export async function probe(file: string): Promise<Content> {
  if (!(await isInstalled('blkid'))) {
    throw new FusetapError('UNSUPPORTED', `cannot tell what ${file} contains: blkid is not installed`, {
      hint: 'apt install util-linux, or name the file system with --type',
    });
  }
  // blkid fails without a message if it finds nothing, or several things that contradict each other
  return parseProbe(await runTool('blkid', ['-p', '-o', 'udev', file], `cannot probe ${file}`).catch(() => ''));
}

/** Parses the output of `blkid -p -o udev`: one KEY=VALUE a line, unsafe characters of a value as \xNN. */
export function parseProbe(text: string): Content {
  const values = new Map(text.split('\n').map((line) => line.split(/=(.*)/s, 2) as [string, string | undefined]));
  const value = (key: string): string | null => {
    const escaped = values.get(key);
    return escaped === undefined || escaped === '' ? null : decode(escaped);
  };
  return {
    type: value('ID_FS_TYPE'),
    isFileSystem: values.get('ID_FS_USAGE') === 'filesystem',
    label: value('ID_FS_LABEL_ENC'),
    uuid: value('ID_FS_UUID_ENC'),
  };
}

function decode(text: string): string {
  return text.replace(/\\x([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}

/** The type of the file system in a file. @throws FusetapError USAGE if blkid finds none */
export async function probeType(file: string): Promise<string> {
  const { type } = await probe(file);
  if (type !== null) return type;
  throw new FusetapError('USAGE', `cannot tell the file system of ${file}: blkid finds none that it knows`, {
    hint: 'name it with --type, or choose a partition with --partition N',
    path: file,
  });
}

const READ_ONLY_TYPES: ReadonlySet<string> = new Set(['squashfs', 'iso9660', 'erofs', 'cramfs', 'romfs']);

/** Whether nobody can write to file systems of that type. */
export function isReadOnlyType(type: string | null): boolean {
  return type !== null && READ_ONLY_TYPES.has(type);
}
