/**
 * Rule 8 for a disk on a network: its name is a file in the runtime directory, which is claimed in place of an image. So
 * vbds of this runtime directory do not share it by mistake. Other machines are not seen.
 */
import { closeSync, constants, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import type { GraphPlan } from '../../../drivers/graph/plan.js';
import { builtin } from '../../../system/builtin.js';
import type { Mode } from '../../images/mode.js';
import { identityOf } from '../../images/open-image.js';
import type { KeptRef } from '../../server/commands.js';
import type { Holdings } from '../vbds/holdings.js';
import type { KeptDisk } from '../vbds/kept-disks.js';
import { type AttachContext, ownBus } from './attach-context.js';

const { O_CREAT, O_RDWR, O_NOFOLLOW } = constants;

/** What the driver of a remote disk keeps; null for a disk that is not remote. */
export async function keptDisk(
  context: AttachContext,
  { claims = null, claimsRead = false }: GraphPlan,
  mode: Mode,
  holdings: Holdings,
): Promise<KeptDisk | null> {
  if (claims === null) return null;
  const claim = await claimRemote(context, claims, claimsRead ? 'r' : mode, holdings);
  return context.kept.begin(holdings, claim, claimsRead);
}

/** Claims a name for a mode. @throws FusetapError BUSY, with the vbd that has it */
async function claimRemote(
  context: AttachContext,
  name: string,
  mode: Mode,
  holdings: Holdings,
): Promise<KeptRef['claim']> {
  const directory = join(context.runtimeDir, 'remote');
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const path = join(directory, builtin.crypto.createHash('sha256').update(name).digest('hex').slice(0, 32));
  closeSync(openSync(path, O_CREAT | O_RDWR | O_NOFOLLOW, 0o600));
  const { describePid } = context;
  const image = await holdings.file({ path, mode, ownBus: ownBus(context), describePid, shownAs: name });
  return { identity: identityOf(image), fd: image.fd };
}
