/**
 * A trial: two copies of an image of a random shape. Our driver does random operations on one, qemu-io the same on the
 * other. Then both images must have the same disk, and both checkers must find both clean. In the next round each program
 * goes on with the image that the other one wrote.
 *
 *      seed ──► shape ──► a/top.qcow2 ──► our driver ┐ ◄─ rounds ─► ┌─► qemu-img compare, qemu-img check
 *                     └─► b/top.qcow2 ──► qemu-io    ┘              └─► our checker, our reader
 */
import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Disk } from '../../drivers/disk.js';
import { checkImage } from '../../drivers/qcow2/check.js';
import { openImageDisk } from '../drivers/graph-factory.js';
import { openFileDisk, qemuCheck } from '../drivers/qcow2/qemu-images.js';
import { qemuImg } from '../drivers/qemu.js';
import { randomNumbers } from '../rules/random.js';
import { act, applyTo, areApart, commandOf, expectBytes, type Operation, randomOperation } from './operations.js';
import { makeImages, randomShape, type Shape, TOP } from './shape.js';

const ROUNDS = 3;
const OPERATIONS = 40;
/** operations that our driver is given at one time */
const AT_ONCE = 4;

export interface Trial {
  readonly shape: Shape;
  readonly operations: number;
}

/** @throws Error at the first difference, with the seed and the shape */
export async function runTrial(seed: number): Promise<Trial> {
  const random = randomNumbers(seed);
  // numbers of neighbouring seeds are alike at first
  for (let i = 0; i < 8; i++) random(2);
  const shape = randomShape(random);
  const directory = await mkdtemp(join(tmpdir(), 'differential-'));
  try {
    const [a, b] = [join(directory, 'a'), join(directory, 'b')];
    const making = random(2 ** 30);
    for (const each of [a, b]) {
      await mkdir(each);
      makeImages(shape, each, randomNumbers(making));
    }
    const expected = await bytesOf(a);
    for (let round = 0; round < ROUNDS; round++) {
      const operations = Array.from({ length: OPERATIONS }, () => randomOperation(shape, random));
      const [ours, theirs] = round % 2 === 0 ? [a, b] : [b, a];
      theyDo(theirs, operations);
      await weDo(ours, operations, { shape, expected });
      await compare(ours, theirs, expected);
    }
    return { shape, operations: ROUNDS * OPERATIONS };
  } catch (error) {
    const { message, stderr = '' } = error as Error & { stderr?: string };
    const text = `seed ${seed}, shape ${JSON.stringify(shape)}: ${message}${stderr}`;
    throw new Error(text, { cause: error });
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** The bytes of the disk, as QEMU reads them. */
async function bytesOf(directory: string): Promise<Buffer> {
  const raw = join(directory, 'raw');
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', join(directory, TOP), raw);
  const bytes = await readFile(raw);
  await rm(raw);
  return bytes;
}

function theyDo(directory: string, operations: readonly Operation[]): void {
  const words = operations.flatMap((operation) => {
    const command = commandOf(operation);
    return command === null ? [] : ['-c', command];
  });
  const text = execFileSync('qemu-io', ['-f', 'qcow2', '-d', 'unmap', ...words, TOP], {
    ...{ cwd: directory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] },
  });
  if (/fail|error|invalid/i.test(text)) throw new Error(`qemu-io: ${text}`);
}

interface Knowledge {
  readonly shape: Shape;
  readonly expected: Buffer;
}

async function weDo(
  directory: string,
  operations: readonly Operation[],
  { shape, expected }: Knowledge,
): Promise<void> {
  const path = join(directory, TOP);
  let disk = await openImageDisk('qcow2', path);
  try {
    for (const group of groups(operations)) {
      if (group[0]?.kind === 'reopen') {
        await disk.close();
        disk = await openImageDisk('qcow2', path);
      }
      const before = Buffer.from(expected);
      for (const operation of group) applyTo(expected, operation, shape);
      await Promise.all(group.map((operation) => said(disk, operation, { shape, expected: before })));
    }
  } finally {
    await disk.close();
  }
}

async function said(disk: Disk, operation: Operation, { shape, expected }: Knowledge): Promise<void> {
  try {
    await act(disk, operation, shape, expected);
  } catch (error) {
    throw new Error(`${JSON.stringify(operation)}: ${(error as Error).message}`, { cause: error });
  }
}

/** Operations whose bytes are apart go together. */
function groups(operations: readonly Operation[]): Operation[][] {
  const found: Operation[][] = [];
  for (const operation of operations) {
    const last = found.at(-1);
    const isApart = operation.kind !== 'reopen' && last?.every((other) => areApart(operation, other));
    if (last !== undefined && isApart && last.length < AT_ONCE) last.push(operation);
    else found.push([operation]);
  }
  return found;
}

async function compare(ours: string, theirs: string, expected: Buffer): Promise<void> {
  const [our, their] = [join(ours, TOP), join(theirs, TOP)];
  qemuImg('compare', '-f', 'qcow2', '-F', 'qcow2', our, their);
  const written = { 'the image that we wrote': our, 'the image that QEMU wrote': their };
  for (const [name, path] of Object.entries(written)) {
    await expectClean(name, path);
    const disk = await openImageDisk('qcow2', path, true);
    try {
      if (disk.size !== expected.length) throw new Error(`${name} has ${disk.size} bytes, not ${expected.length}`);
      await expectBytes(disk, 0, disk.size, expected);
    } finally {
      await disk.close();
    }
  }
}

/** Both checkers must find nothing, and say the same of the clusters. */
async function expectClean(name: string, path: string): Promise<void> {
  const theirs = qemuCheck(path);
  if (theirs.status !== 0) throw new Error(`${name}: qemu-img check: ${JSON.stringify(theirs)}`);
  const image = await openFileDisk(path, { readOnly: true });
  try {
    const ours = await checkImage(image);
    const isClean = ours.corruptionCount === 0 && ours.leaks.clusters === 0 && !ours.isDirty && !ours.isMarkedCorrupt;
    const isSame =
      JSON.stringify(ours.clusters) === JSON.stringify(theirs.clusters) && ours.imageEnd === theirs.imageEnd;
    if (!isClean || !isSame) {
      throw new Error(`${name}: QEMU says ${JSON.stringify(theirs)}, we say ${JSON.stringify(ours)}`);
    }
  } finally {
    await image.close();
  }
}
