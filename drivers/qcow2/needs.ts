/**
 * The files that a qcow2 image names: its backing file, and the file that has its data. The names are hostile input: fusetap
 * looks them up by the rules of `--backing`. Files that the user gave are not asked for.
 */
import type { Need, NeedsContext } from '../driver.js';
import { FusetapError } from '../errors.js';
import { unsupported } from '../formats/faults.js';
import { driverOfFormat } from '../formats/qemu-names.js';
import { requireDisk } from '../image.js';
import { named, quoted } from '../quote.js';
import { type Header, readHeader } from './format/header.js';

/** @throws FusetapError UNSUPPORTED if the format of the backing file is not stated or has no driver; errors of readHeader */
export async function findNeeds(context: Pick<NeedsContext, 'disks'>): Promise<readonly Need[]> {
  const { disks } = context;
  const header = await readHeader(requireDisk(context, 'qcow2'));
  const needs: Need[] = [];
  if (header.backing !== null && disks.backing === undefined) needs.push(backingNeed(header.backing));
  if (header.hasDataFile && disks.data === undefined) needs.push(dataNeed(header));
  return needs;
}

function backingNeed({ name, format }: NonNullable<Header['backing']>): Need {
  if (format === null) {
    throw unsupported(
      `it does not state the format of its backing file ${quoted(name)}`,
      `state it, raw or qcow2: qemu-img rebase -u -F raw -b ${named(name)} IMAGE`,
    );
  }
  const driver = driverOfFormat(format);
  if (driver !== undefined) return { role: 'backing', name, driver };
  throw unsupported(`its backing file ${quoted(name)} has the format ${quoted(format)}, which has no driver`);
}

function dataNeed({ extensions }: Header): Need {
  if (extensions.dataFile !== null) return { role: 'data', name: extensions.dataFile, driver: 'aio' };
  throw new FusetapError('USAGE', 'its data is in another file, and it does not name that file', {
    hint: 'give it in JSON: {"driver": "qcow2", "on": {"file": {"file": IMAGE}, "data": {"file": PATH}}}',
  });
}
