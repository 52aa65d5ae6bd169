/** The judges of qcow2 images: our checker, in this process; and QEMU, which also reads the disk. */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { checkImage } from '../../../drivers/qcow2/check.js';
import { qemuCheck } from '../../drivers/qcow2/qemu-images.js';
import { qemuImg } from '../../drivers/qemu.js';
import { compareDisk } from '../client.js';
import { Expectation } from '../expectation.js';
import { Life } from '../life.js';
import { SparseBytes } from '../sparse-bytes.js';
import { type Judge, open, type Past, type Subject } from '../subject.js';
import { type Files, fileOf } from '../tape.js';

export interface JudgeOptions {
  /** clusters may be counted that nothing uses: a driver that clears the bit of bitmaps leaves those of the bitmaps */
  readonly mayLeak: boolean;
}

export function judgeByChecker({ mayLeak }: JudgeOptions): Judge {
  return (files, past) => judge(files, { ...past, mayLeak });
}

async function judge(files: Files, { wasKilled, mayLeak }: Past & JudgeOptions): Promise<readonly string[]> {
  const image = new Life({ files }).disk('file', { readOnly: true });
  const { corruptions, leaks, isDirty, isMarkedCorrupt } = await checkImage(image);
  const faults = [...corruptions];
  if (leaks.clusters > 0 && !wasKilled && !mayLeak)
    faults.push(`${leaks.clusters} clusters are counted that nothing uses`);
  if (isDirty && !wasKilled) faults.push('it is marked as dirty');
  if (isMarkedCorrupt) faults.push('it is marked as corrupt');
  return faults;
}

/**
 * QEMU's check, and whether QEMU reads the same bytes as the driver.
 * @param directory where the image was made: it names its files there
 */
export function judgeByQemu(subject: Subject, directory: string, { mayLeak }: JudgeOptions): Judge {
  return async (files, { wasKilled }) => {
    const path = join(directory, 'judged.qcow2');
    await fileOf(files, 'file').save(path);
    await files.data?.save(join(directory, 'data.raw'));
    const { status, corruptions, leaks, stderr } = qemuCheck(path);
    const faults: string[] = [];
    if (status !== 0 && !(status === 3 && (wasKilled || mayLeak))) {
      faults.push(`qemu-img check ends with ${status}: ${corruptions} corruptions, ${leaks} leaks ${stderr.trim()}`);
    } else {
      const log = new Expectation(await contentOf(path, directory), () => 0);
      const disk = await open(new Life({ files }), subject, { readOnly: true });
      await compareDisk(disk, log, 'QEMU reads other bytes').catch((error: Error) => faults.push(error.message));
      await disk.close();
    }
    await rm(path);
    return faults;
  };
}

/** What QEMU reads. */
export async function contentOf(path: string, directory: string): Promise<SparseBytes> {
  const raw = join(directory, 'content.raw');
  qemuImg('convert', '-f', 'qcow2', '-O', 'raw', path, raw);
  const content = await SparseBytes.load(raw);
  await rm(raw);
  return content;
}
