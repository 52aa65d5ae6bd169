/**
 * Does the same operations to two images that are equal at first: one with our driver in this process, the other with
 * qemu-io. Then QEMU compares the two, and checks ours; a model in memory says which of them is wrong.
 *
 *      seed ──► image, twice ──► operations ──► ours, model ──┐
 *                                          └──► qemu-io ──────┴──► qemu-img compare, qemu-img check
 */
import { spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Disk, frontDisk } from '../../../drivers/disk.js';
import { Random } from '../../../scripts/lib/torture/second-faults/random.js';
import { byMap } from '../../conformance/by-map.js';
import { openTreeDisk } from '../../drivers/graph-factory.js';
import { mix } from '../situations.js';
import { type DifferDriver, type ImageShape, makeImage, randomShape, run } from './images.js';
import { applyToModel, commandOf, describeOperation, type Operation, randomOperation } from './operations.js';

const SESSIONS = 3;

export interface DifferOptions {
  /** of each session; default 40 */
  readonly operations?: number;
  /** breaks what our driver writes, to test the test */
  readonly spoil?: (bytes: Buffer) => void;
}

/** @throws Error that names the seed, the image and what differs */
export async function differ(driver: DifferDriver, seed: number, options: DifferOptions = {}): Promise<void> {
  const { operations = 40, spoil = () => {} } = options;
  const random = new Random(mix(seed));
  const shape = randomShape(driver, random);
  const directory = await mkdtemp(join(tmpdir(), 'differ-'));
  const [ours, theirs] = [join(directory, 'ours'), join(directory, 'theirs')] as const;
  const done: Operation[] = [];
  try {
    for (const each of [ours, theirs]) {
      await mkdir(each);
      makeImage(shape, each);
    }
    const model = contentOf(shape, ours);
    for (let session = 0; session < SESSIONS; session++) {
      const script = Array.from({ length: operations }, () => randomOperation(shape, random));
      // half of them as threads do, by the map
      await runOurs(shape, { directory: ours, script, model, isByMap: random.isOneIn(2), done, spoil });
      runTheirs(shape, theirs, script);
    }
    await judge(shape, { ours, theirs, model });
  } catch (error) {
    const last = done.slice(-8).map(describeOperation).join('; ');
    const what = error instanceof Error ? error.message.trim() : String(error);
    throw new Error(
      `${driver}, seed ${seed}: ${what}\n${shape.text}\nafter ${done.length} operations, the last: ${last}`,
      {
        cause: error,
      },
    );
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** What QEMU reads. */
function contentOf({ format }: ImageShape, directory: string): Buffer {
  run(['qemu-img', 'convert', '-f', format, '-O', 'raw', 'disk', 'content'], directory);
  const size = Number(
    JSON.parse(run(['qemu-img', 'info', '--output', 'json', '-f', format, 'disk'], directory))['virtual-size'],
  );
  return readWhole(join(directory, 'content'), size);
}

function readWhole(path: string, size: number): Buffer {
  const { stdout } = spawnSync('cat', [path], { maxBuffer: size + 1, encoding: 'buffer' });
  if (stdout.length !== size) throw new Error(`${path} has ${stdout.length} bytes, not ${size}`);
  return stdout;
}

interface Session {
  readonly directory: string;
  readonly script: readonly Operation[];
  readonly model: Buffer;
  readonly isByMap: boolean;
  readonly done: Operation[];
  readonly spoil: (bytes: Buffer) => void;
}

async function runOurs({ driver }: ImageShape, session: Session): Promise<void> {
  const { directory, script, model, isByMap, done, spoil } = session;
  const graph = { driver, options: {}, on: { file: { file: join(directory, 'disk') } } };
  const raw = await openTreeDisk(graph, false);
  const disk = frontDisk(isByMap && raw.map !== undefined ? byMap(raw) : raw, { readOnly: false });
  try {
    if (disk.size !== model.length) throw new Error(`the disk has ${disk.size} bytes, not ${model.length}`);
    for (const operation of script) {
      done.push(operation);
      await runOne(disk, operation, { model, spoil });
      applyToModel(model, operation);
    }
    await compareAll(disk, model);
  } finally {
    await disk.close();
  }
}

async function runOne(
  disk: Disk,
  operation: Operation,
  { model, spoil }: Pick<Session, 'model' | 'spoil'>,
): Promise<void> {
  if (operation.kind === 'flush') return await disk.flush();
  const { kind, offset, length } = operation;
  if (kind === 'read') return await compareRange(disk, model, offset, length);
  if (kind === 'write') {
    const bytes = Buffer.alloc(length, operation.byte);
    spoil(bytes);
    await disk.write(bytes, offset);
  } else await disk.zero(offset, length, { punch: kind === 'discard' || operation.punch });
}

async function compareAll(disk: Disk, model: Buffer): Promise<void> {
  for (let at = 0; at < model.length; at += 1 << 20) {
    await compareRange(disk, model, at, Math.min(1 << 20, model.length - at));
  }
}

async function compareRange(disk: Disk, model: Buffer, offset: number, length: number): Promise<void> {
  const found = Buffer.alloc(length);
  await disk.read(found, offset);
  if (found.equals(model.subarray(offset, offset + length))) return;
  const at = found.findIndex((byte, index) => byte !== model[offset + index]);
  throw new Error(`we read ${found[at]} at byte ${offset + at}, not ${model[offset + at]}`);
}

function runTheirs({ format }: ImageShape, directory: string, script: readonly Operation[]): void {
  const commands = script.flatMap((operation) => commandOf(operation) ?? []);
  run(['qemu-io', '-f', format, '-d', 'unmap', 'disk'], directory, `${commands.join('\n')}\n`);
}

interface Sides {
  readonly ours: string;
  readonly theirs: string;
  readonly model: Buffer;
}

async function judge(shape: ImageShape, { ours, theirs, model }: Sides): Promise<void> {
  const { format, rawData } = shape;
  const wrong = [ours, theirs].filter((directory) => !contentOf(shape, directory).equals(model));
  if (wrong.length > 0) {
    throw new Error(
      `QEMU reads other bytes than the model: ${wrong.map((each) => (each === ours ? 'ours' : 'its own'))}`,
    );
  }
  run(['qemu-img', 'compare', '-f', format, '-F', format, join(ours, 'disk'), join(theirs, 'disk')], ours);
  for (const directory of [ours, theirs]) {
    const { status, stdout, stderr } = spawnSync('qemu-img', ['check', '-f', format, 'disk'], {
      cwd: directory,
      encoding: 'utf8',
    });
    // 63: the format has no check
    if (status === 0 || status === 63 || (directory === theirs && status === 3)) continue;
    throw new Error(`qemu-img check of ${directory === ours ? 'ours' : 'its own'}: ${status}\n${stdout}${stderr}`);
  }
  if (rawData === null) return;
  const data = await readFile(join(ours, rawData));
  if (!data.subarray(0, model.length).equals(model)) throw new Error('the raw data file has other bytes than the disk');
}
