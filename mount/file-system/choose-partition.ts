/** Chooses the partition to mount: by number, name, label or UUID, or the only one that has a file system. */
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { humanSize } from '../../drivers/human-size.js';
import { readPartitions } from '../../drivers/partitions/index.js';
import { named, quoted } from '../../drivers/quote.js';
import type { PartitionInfo, VbdInfo } from '../control/interface.js';
import { type Content, NOTHING_FOUND, probe } from './tools/blkid.js';
import { whyNoFileSystem } from './tools/failure-hints.js';

/** A disk, or a partition of it, and its content. */
export interface Part {
  /** the file of the bus */
  readonly file: string;
  /** null: the whole disk */
  readonly number: number | null;
  readonly content: Content;
}

/** A partition with its number and its content. */
interface Probed {
  readonly partition: PartitionInfo;
  readonly number: number;
  readonly content: Content;
}

/** how long the files of a vbd may be away */
const AWAY_MS = 5_000;
const POLL_MS = 20;
/** how many processes of blkid run at once */
const PROBES_AT_ONCE = 4;

export function partitionNumber({ vdev }: Pick<VbdInfo, 'vdev'>, partition: PartitionInfo): number {
  return Number(partition.vdev.slice(vdev.length));
}

/** The whole disk. */
export async function wholeDisk({ path }: VbdInfo): Promise<Part> {
  return { file: path, number: null, content: await contentOf(path) };
}

/** A partition that is known already. */
export async function partOf(vbd: VbdInfo, partition: PartitionInfo): Promise<Part> {
  return toPart({ partition, number: partitionNumber(vbd, partition), content: await contentOf(partition.path) });
}

/**
 * Without blkid, mount(8) tries what the content may be. The bus takes the files of a vbd away for a moment while it finds
 * out whether nobody uses the vbd. So it is believed only the second time that nothing is there.
 */
async function contentOf(path: string): Promise<Content> {
  const deadline = performance.now() + AWAY_MS;
  for (let isSecond = false; ; isSecond = true) {
    const content = await probe(path).catch(() => NOTHING_FOUND);
    if (content.type !== null || content.uuid !== null || isSecond) return content;
    while (!(await canBeOpened(path)) && performance.now() < deadline) await delay(POLL_MS);
  }
}

async function canBeOpened(path: string): Promise<boolean> {
  try {
    await (await open(path)).close();
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ENOENT';
  }
}

function toPart({ partition, number, content }: Probed): Part {
  return { file: partition.path, number, content };
}

/**
 * The partition that a word names.
 * @param word a number, a name in a GPT, or a label or UUID of a file system
 * @throws FusetapError NOT_FOUND with the reasons why partitions were left out; USAGE if several have that name
 */
export async function findPartition(vbd: VbdInfo, word: string, disk: FileHandle): Promise<Part> {
  const partitions = vbd.partitions ?? [];
  const byNumber = partitions.find((partition) => String(partitionNumber(vbd, partition)) === word);
  if (byNumber !== undefined) return await partOf(vbd, byNumber);
  const isNumber = /^\d+$/.test(word);
  const probed = isNumber ? [] : await probeAll(vbd);
  const found = probed.filter(({ partition: { name }, content: { label, uuid } }) =>
    [name, label, uuid].includes(word),
  );
  const [first, second] = found;
  if (first === undefined) throw await notFound(vbd, word, disk, probed);
  if (second === undefined) return toPart(first);
  const numbers = found.map(({ number }) => number).join(', ');
  throw new FusetapError('USAGE', `several partitions are called ${quoted(word)}: ${numbers}`, {
    hint: 'give the number',
  });
}

async function notFound(
  vbd: VbdInfo,
  word: string,
  disk: FileHandle,
  probed: readonly Probed[],
): Promise<FusetapError> {
  const reasons = await whyLeftOut(vbd, disk);
  const why = reasons.length === 0 ? '' : ` (${reasons.join('; ')})`;
  const numbers = (vbd.partitions ?? []).map((partition) => partitionNumber(vbd, partition)).join(', ');
  const has = probed.length > 0 ? list(probed) : numbers;
  return new FusetapError('NOT_FOUND', `the image has no partition ${/^\d+$/.test(word) ? word : quoted(word)}${why}`, {
    hint: has === '' ? 'it has none: omit --partition' : `it has ${has}`,
  });
}

/** Why partitions were left out when the table was read. The table is read again: a vbd does not keep the reasons. */
async function whyLeftOut({ size }: VbdInfo, disk: FileHandle): Promise<readonly string[]> {
  const read = async (offset: number, length: number): Promise<Buffer> => {
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await disk.read(buffer, 0, length, offset);
    return buffer.subarray(0, bytesRead);
  };
  return (await readPartitions(read, size).catch(() => ({ notes: [] }))).notes;
}

async function probeAll(vbd: VbdInfo): Promise<Probed[]> {
  const probed: Probed[] = [];
  const partitions = vbd.partitions ?? [];
  for (let at = 0; at < partitions.length; at += PROBES_AT_ONCE) {
    const chunk = partitions.slice(at, at + PROBES_AT_ONCE).map(async (partition) => {
      const content = await contentOf(partition.path);
      return { partition, number: partitionNumber(vbd, partition), content };
    });
    probed.push(...(await Promise.all(chunk)));
  }
  return probed;
}

/** The partitions that have a file system. @throws FusetapError USAGE if there is none */
export async function mountableParts(vbd: VbdInfo): Promise<Part[]> {
  return mountable(vbd, await probeAll(vbd)).map(toPart);
}

function mountable(vbd: VbdInfo, probed: readonly Probed[]): Probed[] {
  const found = probed.filter(({ content }) => content.isFileSystem);
  if (found.length > 0) return found;
  if (probed.length === 0) {
    throw new FusetapError('USAGE', `${named(vbd.image ?? vbd.path)} has no partitions`, {
      hint: 'mount it without --partitions',
    });
  }
  const hint = probed.map(({ content }) => whyNoFileSystem(content)).find((why) => why !== undefined);
  throw new FusetapError('USAGE', `no partition has a file system: ${list(probed)}`, {
    hint: hint ?? 'choose one with --partition N and --type TYPE',
  });
}

/**
 * The file system to mount if no partition was named: of the whole disk, or of the only partition that has one.
 * @throws FusetapError USAGE if several partitions have one, or none
 */
export async function onlyPart(vbd: VbdInfo): Promise<Part> {
  const whole = await wholeDisk(vbd);
  // a hybrid ISO image has partitions too
  if ((vbd.partitions ?? []).length === 0 || whole.content.isFileSystem) return whole;
  const probed = await probeAll(vbd);
  const [only, ...others] = mountable(vbd, probed);
  if (only !== undefined && others.length === 0) return toPart(only);
  throw new FusetapError('USAGE', `several partitions can be mounted: ${list(probed)}`, {
    hint: 'choose one with --partition N, or mount all of them below the directory with --partitions',
  });
}

/** Partitions in one line, as `1 32M FAT  2 95M ext4 rootfs`. */
function list(probed: readonly Probed[]): string {
  return probed
    .map(({ partition: { size, typeName, type, name }, number, content }) => {
      const what = content.type === null ? (typeName ?? `type ${type}`) : (SHORT_NAMES[content.type] ?? content.type);
      const label = content.label ?? name;
      return [number, humanSize(size), what, ...(label === null ? [] : [named(label)])].join(' ');
    })
    .join('  ');
}

const SHORT_NAMES: Readonly<Record<string, string>> = { vfat: 'FAT', crypto_LUKS: 'LUKS', LVM2_member: 'LVM' };
