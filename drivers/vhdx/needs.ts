/** The parent that a differencing VHDX names. The name is hostile input: fusetap looks it up by the rules of `--backing`. */
import type { Need, NeedsContext } from '../driver.js';
import { unsupported } from '../formats/faults.js';
import { requireDisk } from '../image.js';
import { quotedList } from '../quote.js';
import { openVhdx } from './open-image.js';

/** @throws FusetapError UNSUPPORTED if its parent has no relative path; errors of openVhdx */
export async function findNeeds(context: Pick<NeedsContext, 'disks'>): Promise<readonly Need[]> {
  const { metadata } = await openVhdx(requireDisk(context, 'vhdx'));
  const { parent } = metadata;
  if (parent === null || context.disks.backing !== undefined) return [];
  if (parent.relativePath !== null) return [{ role: 'backing', name: parent.relativePath, driver: 'vhdx' }];
  const paths = parent.otherPaths.length === 0 ? '' : `, only ${quotedList(parent.otherPaths)}`;
  throw unsupported(
    `it does not say where its parent is from its own directory${paths}`,
    'name the parent in JSON: {"driver": "vhdx", "on": {"file": {"file": IMAGE}, ' +
      '"backing": {"driver": "vhdx", "on": {"file": {"file": PATH}}}}}',
  );
}
