/**
 * Opens the source of a vbd's bytes, for attach and swap: its files, claimed by rule 8, and its memories.
 */
import { FusetapError } from '../../../drivers/errors.js';
import type { GraphPlan } from '../../../drivers/graph/plan.js';
import { hasThirdParty, mainFile, mainImage, type NodeSpec, treeOf } from '../../../drivers/graph.js';
import type { DiskWish } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { endsShown } from '../../images/refuse-foreign.js';
import { Holdings } from '../vbds/holdings.js';
import type { Vbd, VbdSource } from '../vbds/vbd.js';
import type { AttachContext } from './attach-context.js';
import { keptDisk } from './claim-remote.js';
import { TreeOpening } from './open-tree.js';

export interface SourceWish extends DiskWish, Pick<Vbd, 'mode' | 'filters'> {
  /** what is written must be there later: memory is refused; default: false */
  readonly isKept?: boolean;
}

export interface OpenedSource {
  readonly source: VbdSource;
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

/**
 * Opens a source. If that fails, nothing stays open or claimed.
 * @param old the source that it replaces: a file that both have stays open and claimed
 * @throws FusetapError USAGE if drivers and files do not match; errors of opening, claiming and copying
 */
export async function openSource(
  context: AttachContext,
  wish: SourceWish,
  watcher: CopyWatcher,
  old?: VbdSource,
): Promise<OpenedSource> {
  const { filters, mode, raw = false, share = null, backing = 'same-directory' } = wish;
  const graph = treeOf(wish);
  const plan = await context.server.request<'plan'>({ op: 'plan', graph, filters }, { once: hasThirdParty(graph) });
  checkShare(plan, graph, share);
  if (wish.isKept) refuseMemory(plan, graph);
  const holdings = new Holdings();
  try {
    const recognize = raw ? 'neither' : endsShown(filters);
    const asked = { mode, share, recognize, backing, holdings, old };
    const opened = await new TreeOpening(context, asked, watcher).open(graph, plan);
    const { files, memories, repaired, notes } = opened;
    const memory = memories.get('') ?? null;
    if (memory !== null && mode !== 'r') await context.memories.allowWriting(memory);
    watcher.signal.throwIfAborted();
    const { driver, options } = graph;
    const image = files.get(mainFile(graph) ?? '')?.image ?? null;
    const imagePath = mainImage(graph);
    const kept = await keptDisk(context, plan, mode, holdings);
    const source = { driver, options, graph: opened.graph, imagePath, image, files, memory, memories, repaired };
    return { source: { ...source, raw, backing, kept, holdings }, notes };
  } catch (error) {
    await holdings.release();
    throw error;
  }
}

function refuseMemory({ scratch }: GraphPlan, { driver }: NodeSpec): void {
  if (Object.keys(scratch).length === 0) return;
  throw new FusetapError('USAGE', `what is written with driver ${driver} is in memory only: it cannot keep a copy`, {
    hint: 'name a disk that keeps what is written, or a file',
  });
}

/** @throws FusetapError USAGE if a name is given, and the disk has no memory that can be shared by it */
function checkShare({ scratch }: GraphPlan, { driver }: NodeSpec, share: string | null): void {
  if (share === null || scratch[''] === 'shared') return;
  throw new FusetapError('USAGE', `driver ${driver} has no memory to share as ${share}`, {
    hint: 'omit --share, or use the driver ram',
  });
}
