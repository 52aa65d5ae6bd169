/**
 * Files that images name. The names are hostile input: whoever wrote an image must not be able to read other files of
 * the user who attaches it. So a name is a path in the file system and nothing else, it is looked up in the directory of
 * the file that names it, and `--backing` says how far it may lead.
 */
import { FusetapError } from '../../drivers/errors.js';
import type { NodeNeed } from '../../drivers/graph/open-graph.js';
import type { FilePlan, GraphPlan } from '../../drivers/graph/plan.js';
import { checkGraph, mainFile, type NodeSpec, nodeAt, pathOf, simpleGraph, withBelow } from '../../drivers/graph.js';
import { driverNames } from '../../drivers/names.js';
import { named, quoted } from '../../drivers/quote.js';
import { type NamePolicy, placeOfNamed } from './named-file.js';
import { identityOf, type OpenedImage } from './open-image.js';

/** A tree, and its files that are open, by their paths in it. */
interface Tree {
  readonly graph: NodeSpec;
  readonly files: ReadonlyMap<string, { readonly image: OpenedImage }>;
}

/** A tree with a named file, which is not open yet. */
export interface Added {
  readonly graph: NodeSpec;
  /** its path in the tree */
  readonly path: string;
  /** absolute */
  readonly name: string;
  /** the directory that it must be in; undefined: any */
  readonly below: string | undefined;
  /** @throws FusetapError USAGE if the file is below itself */
  refuseCircle(image: OpenedImage): void;
}

/** How the files are found and opened: in this process, or by a server. */
export interface Following {
  readonly policy: NamePolicy;
  /** those of the tree that are open; `open` adds to them */
  readonly files: Tree['files'];
  /** @param absent the paths of optional needs whose file does not exist */
  needs(graph: NodeSpec, absent: readonly string[]): Promise<readonly NodeNeed[]>;
  plan(graph: NodeSpec): Promise<GraphPlan>;
  open(added: Added, plan: FilePlan): Promise<void>;
}

/**
 * Opens what the images of a tree name, until they need nothing more.
 * @param plan of the tree
 * @returns the tree with these files, and its plan
 * @throws FusetapError as addNamedFile; errors of the drivers, and of `open`
 */
export async function openNamedFiles(
  graph: NodeSpec,
  plan: GraphPlan,
  following: Following,
): Promise<{ graph: NodeSpec; plan: GraphPlan }> {
  const { policy, files } = following;
  let whole = { graph, plan };
  const absent: string[] = [];
  for (;;) {
    const needs = await following.needs(whole.graph, absent);
    if (needs.length === 0) return whole;
    for (const need of needs) {
      const added = addNamedFile({ graph: whole.graph, files }, need, policy);
      const next = { graph: added.graph, plan: await following.plan(added.graph) };
      const opening = following.open(added, next.plan.files[added.path] as FilePlan);
      if (await isThere(opening, need)) whole = next;
      else absent.push(pathOf(need.node, need.role));
    }
  }
}

/** @returns false if there is no such file, and the image can do without it */
async function isThere(opening: Promise<void>, { isOptional }: NodeNeed): Promise<boolean> {
  try {
    await opening;
    return true;
  } catch (error) {
    if (isOptional && error instanceof FusetapError && error.code === 'NOT_FOUND') return false;
    throw error;
  }
}

/** @throws FusetapError DENIED if the policy forbids the name; USAGE if the tree becomes too large */
export function addNamedFile(tree: Tree, need: NodeNeed, policy: NamePolicy): Added {
  const { node, role, driver } = need;
  const owner = mainOf(tree, node);
  if (owner === undefined) {
    const top = nodeAt(tree.graph, node).driver;
    throw new FusetapError('UNSUPPORTED', `driver ${top} needs the file ${quoted(need.name)}, and is not over a file`, {
      hint: 'its image must be a file: names inside it are looked up in its directory',
    });
  }
  const { path: name, below } = placeOfNamed(need.name, owner, policy);
  if (!driverNames.includes(driver)) throw new RangeError(`${need.name} needs the driver ${driver}, which is none`);
  const at = pathOf(node, role);
  const graph = withBelow(tree.graph, node, role, driver === 'aio' ? { file: name } : simpleGraph(driver, name));
  checkGraph(graph);
  const path = driver === 'aio' ? at : pathOf(at, 'file');
  return {
    ...{ graph, path, name, below },
    refuseCircle: (image) => refuseCircle(tree, node, image),
  };
}

/** The main file of a node: the one that has the name. Undefined if it is not open, as below memory. */
export function mainOf({ graph, files }: Pick<Tree, 'graph' | 'files'>, node: string): OpenedImage | undefined {
  const main = mainFile(nodeAt(graph, node));
  return main === null ? undefined : files.get(pathOf(node, main))?.image;
}

/** A file must not be below itself: whatever its name, it is known by its identity. */
function refuseCircle(tree: Tree, node: string, image: OpenedImage): void {
  const identity = identityOf(image);
  const above = node === '' ? [''] : ['', ...node.split('/').map((_, i, all) => all.slice(0, i + 1).join('/'))];
  for (const path of above) {
    const owner = mainOf(tree, path);
    if (owner === undefined || identityOf(owner) !== identity) continue;
    throw new FusetapError('USAGE', `${named(owner.path)} is below itself: its chain of files is a circle`, {
      path: owner.path,
      hint: 'repair the image',
    });
  }
}
