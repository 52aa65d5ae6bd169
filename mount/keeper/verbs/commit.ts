/**
 * Commit: moves what a vbd has over its base into the base, while programs have it open.
 *
 *      base: path checked ──► opened and claimed for writing (rule 8) ──► repaired
 *        ──► server: disk opened again, over the writable base ──► commit ──► disk opened again, as before
 *        ──► base claimed for reading again
 *
 * The server opens the disk again between a pause and a resume of its own. The vbd does not change in the keeper: a server
 * that is started meanwhile opens the base for reading, with the size that it has then. The commit is then done again from
 * the start: what was moved is in the base already.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { hasThirdParty, isFile, mainImage, type NodeSpec } from '../../../drivers/graph.js';
import { named } from '../../../drivers/quote.js';
import type { CommitResult } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { identityOf } from '../../images/open-image.js';
import { withoutModes } from '../../images/without-modes.js';
import { logEvent } from '../../runtime/log.js';
import type { GraphRef } from '../../server/commands.js';
import type { AttachContext } from '../sources/attach-context.js';
import { type Base, RaisedBase, writtenFiles } from '../sources/raised-base.js';
import { repairTree } from '../sources/repair.js';
import { isServerDeath } from '../supervision/server-process.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { identitiesOf, type Vbd } from '../vbds/vbd.js';
import { attachCommand } from './attach.js';
import { logCopy } from './log-copy.js';

/** how many servers may die or be replaced during one commit */
const ATTEMPT_LIMIT = 3;

/** What a commit needs of the keeper. */
export interface Committing {
  readonly bus: BusParts;
  readonly context: AttachContext;
}

/** The vbd that is committed, and its base, open for writing. */
interface Commit extends Committing {
  readonly vbd: Vbd;
  readonly base: Base;
  readonly raised: RaisedBase;
  readonly watcher: CopyWatcher;
}

/**
 * @throws FusetapError UNSUPPORTED if it has no base that can be written, or if the server is older; USAGE if it is not
 *   attached with mode w, or is paused; BUSY if somebody else uses the base; errors of the disk. The vbd is as before then,
 *   and what was moved stays in the base
 */
export async function commit({ bus, context }: Committing, vbd: Vbd, watcher: CopyWatcher): Promise<CommitResult> {
  return await bus.activities.run(vbd, 'committing', watcher.signal, async (signal) => {
    refuseUnfit(vbd, bus.place.name);
    const base = await findBase(bus, vbd);
    const image = isFile(base.below) ? base.below.file : mainImage(base.below);
    try {
      refuseShared(bus, vbd, base);
      await bus.images.mustAnswer(bus, vbd);
      const raised = await withoutModes('make the base writable', () => RaisedBase.raise(context, vbd, base));
      const told = logCopy(image, { ...watcher, signal }, 'committing');
      const notes = await commitTo({ bus, context, vbd, base, raised, watcher: told });
      logEvent({ event: 'committed', vdev: vbd.vdev, base: image });
      return { base: image, ...(notes.length > 0 && { notes: [...notes] }) };
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      throw cannotCommit(vbd, image, error);
    }
  });
}

async function findBase({ server, place }: BusParts, { vdev, source }: Vbd): Promise<Base> {
  const { graph, driver } = source;
  const once = hasThirdParty(graph);
  const { base } = await server.request<'plan'>({ op: 'plan', graph, filters: [] }, { once });
  if (base === undefined) throw olderServer(place.name);
  const below = base === null ? undefined : graph.on[base];
  if (base === null || below === undefined) throw hasNoBase(vdev, driver);
  const ask = (node: NodeSpec) => server.request<'plan'>({ op: 'plan', graph: node, filters: [] }, { once });
  return { role: base, below, plan: isFile(below) ? null : await ask(below) };
}

/** @returns remarks for the user */
async function commitTo(commit: Commit): Promise<readonly string[]> {
  const { bus, vbd, raised } = commit;
  const notes = new Set<string>();
  vbd.remeasure = () => raised.remeasure(bus.answering);
  try {
    for (let attempt = 1; ; attempt++) {
      const { restarts } = bus.server;
      try {
        await attemptCommit(commit, notes);
        break;
      } catch (error) {
        const isReplaced = isServerDeath(error) || bus.server.restarts !== restarts;
        if (!isReplaced || attempt === ATTEMPT_LIMIT || hasThirdParty(vbd.source.graph)) throw error;
      }
    }
  } catch (error) {
    await endCommit(commit).catch((reason: unknown) => console.error(`after the commit of ${vbd.vdev}:`, reason));
    throw error;
  }
  await endCommit(commit);
  return [...notes];
}

async function attemptCommit(commit: Commit, notes: Set<string>): Promise<void> {
  const { bus, context, vbd, base, raised, watcher } = commit;
  const { signal, progress } = watcher;
  const wish = { tree: raised.tree, nodes: base.plan?.repair ?? [] };
  const { repaired, notes: remarks } = await repairTree(context, wish, watcher);
  for (const remark of remarks) notes.add(remark);
  await raised.remeasure(bus.answering);
  signal.throwIfAborted();
  await openAgain(commit, raised.in(attachCommand(vbd, bus.memories).disk, repaired));
  await bus.server.request<'commit'>({ op: 'commit', nodeId: vbd.nodeId }, { signal, progress });
}

/** Opens the disk as before. If that fails, the base stays open and claimed for writing: the next commit tries again. */
async function endCommit(commit: Commit): Promise<void> {
  const { bus, vbd, raised } = commit;
  // if it was detached by force, everything was released with it
  if (!bus.vbds.has(vbd)) return;
  await raised.remeasure(bus.answering);
  await openAgain(commit, attachCommand(vbd, bus.memories).disk);
  const { image } = vbd.source;
  if (image !== null) await bus.images.accept(bus, vbd, image);
  vbd.remeasure = undefined;
  await raised.lower();
}

async function openAgain({ bus, context, vbd }: Commit, disk: GraphRef): Promise<void> {
  // without the size, the server tells an error of the driver, and opens no broken disk
  const { size: _, ...attach } = { ...attachCommand(vbd, bus.memories), disk };
  const once = hasThirdParty(vbd.source.graph);
  await bus.server.request<'resize'>({ op: 'resize', attach, facts: context.facts(vbd) }, { once });
}

function refuseUnfit({ vdev, mode, paused, broken }: Vbd, bus: string): void {
  if (mode !== 'w') {
    throw new FusetapError('USAGE', `${vdev} on bus ${bus} has mode ${mode}: only a vbd of mode w is committed`, {
      hint: mode === 'r' ? 'nothing was written to it' : 'attach it with mode w',
    });
  }
  if (broken !== null) throw new FusetapError('FAILED', `${vdev} on bus ${bus} is broken: ${broken}`);
  if (!paused) return;
  throw new FusetapError('USAGE', `${vdev} on bus ${bus} is paused: its images must not change meanwhile`, {
    hint: `fusetap resume --bus ${bus} ${vdev}`,
  });
}

/** Claims tell of vbds on other buses. */
function refuseShared({ vbds, place }: BusParts, vbd: Vbd, base: Base): void {
  for (const { image } of writtenFiles(vbd.source, base).values()) {
    const other = vbds.all().find((each) => each !== vbd && identitiesOf(each.source).includes(identityOf(image)));
    if (other === undefined) continue;
    throw new FusetapError('BUSY', `${other.vdev} on bus ${place.name} uses it too`, {
      path: image.path,
      hint: `fusetap detach --bus ${place.name} ${other.vdev}`,
    });
  }
}

function hasNoBase(vdev: string, driver: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} has no base that it could be committed to: its driver is ${driver}`, {
    hint: 'only a qcow2 image with a backing file has one; fusetap save copies a disk to a file',
  });
}

function olderServer(bus: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `the server of bus ${bus} is older, and cannot do this`, {
    hint: `fusetap upgrade --bus ${bus}`,
  });
}

function cannotCommit({ vdev }: Vbd, base: string | null, error: unknown): unknown {
  if (!(error instanceof FusetapError)) return error;
  const { code, message, errno, operation, offset, path, holders } = error;
  const to = base === null ? 'to its base' : `to ${named(base)}`;
  const hint = code === 'NO_SPACE' ? 'make room for the base, and commit again' : error.hint;
  const details = { hint, errno, operation, offset, path, holders, cause: error };
  return new FusetapError(code, `${vdev} cannot be committed ${to}: ${message}`, details);
}
