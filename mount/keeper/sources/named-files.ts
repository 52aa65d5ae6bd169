/**
 * Files that images name. The names are hostile input: whoever wrote an image must not be able to read other files of
 * the user who attaches it. So a name is a path in the file system and nothing else, it is looked up in the directory of
 * the file that names it, and `--backing` says how far it may lead.
 */
import { dirname, isAbsolute, join } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import type { NodeNeed } from '../../../drivers/graph/open-graph.js';
import { checkGraph, mainFile, type NodeSpec, nodeAt, pathOf, simpleGraph, withBelow } from '../../../drivers/graph.js';
import { driverNames } from '../../../drivers/names.js';
import { named, quoted } from '../../../drivers/quote.js';
import type { BackingPolicy } from '../../control/interface.js';
import { identityOf, type OpenedImage } from '../../images/open-image.js';
import type { SourceFile } from '../vbds/vbd.js';

/** as PATH_MAX */
const LONGEST = 4096;

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

/** @throws FusetapError DENIED if the policy forbids the name; USAGE if the tree becomes too large */
export function addNamedFile(
  tree: { readonly graph: NodeSpec; readonly files: ReadonlyMap<string, SourceFile> },
  need: NodeNeed,
  policy: BackingPolicy,
): Added {
  const { node, role, driver } = need;
  const owner = mainOf(tree, node);
  if (owner === undefined) {
    const top = nodeAt(tree.graph, node).driver;
    throw new FusetapError('UNSUPPORTED', `driver ${top} needs the file ${quoted(need.name)}, and is not over a file`, {
      hint: 'its image must be a file: names inside it are looked up in its directory',
    });
  }
  const { directory, name } = lookUp(need, owner, policy);
  if (!driverNames.includes(driver)) throw new RangeError(`${need.name} needs the driver ${driver}, which is none`);
  const at = pathOf(node, role);
  const graph = withBelow(tree.graph, node, role, driver === 'aio' ? { file: name } : simpleGraph(driver, name));
  checkGraph(graph);
  const path = driver === 'aio' ? at : pathOf(at, 'file');
  return {
    ...{ graph, path, name, below: policy === 'any' ? undefined : directory },
    refuseCircle: (image) => refuseCircle(tree, node, image),
  };
}

/** The main file of a node: the one that has the name. Undefined if it is not open, as below memory. */
function mainOf(
  { graph, files }: { readonly graph: NodeSpec; readonly files: ReadonlyMap<string, SourceFile> },
  node: string,
): OpenedImage | undefined {
  const main = mainFile(nodeAt(graph, node));
  return main === null ? undefined : files.get(pathOf(node, main))?.image;
}

function lookUp({ name }: NodeNeed, owner: OpenedImage, policy: BackingPolicy): { directory: string; name: string } {
  const directory = dirname(owner.realPath);
  const refuse = (why: string, hint: string): FusetapError => {
    const shown = quoted(name.length > 200 ? `${name.slice(0, 200)}…` : name);
    return new FusetapError('DENIED', `${named(owner.path)} names the file ${shown}, ${why}`, {
      path: owner.path,
      hint,
    });
  };
  if (owner.kind === 'block' && policy !== 'any') {
    throw refuse('and a device has no directory', 'if you trust it: --backing any');
  }
  if (policy === 'none') throw refuse('and --backing none forbids that', 'allow it with --backing same-directory');
  if (name === '' || name.length > LONGEST || /\p{Cc}/u.test(name)) {
    throw refuse('which is no path', 'repair the image, or give the files of its chain yourself');
  }
  // as QEMU sees it; ./a:b is a path
  if (/^[^/]*:/.test(name)) {
    throw refuse('which is not a path but a protocol', 'only files in the file system are opened');
  }
  const path = isAbsolute(name) ? name : join(directory, name);
  const isInside = join('/', path).startsWith(directory === '/' ? '/' : `${directory}/`);
  if (policy === 'same-directory' && !isInside) {
    const hint = 'if you trust the image: --backing any; or copy the file there';
    throw refuse(`which is not below ${named(directory)}`, hint);
  }
  return { directory, name: join('/', path) };
}

/** A file must not be below itself: whatever its name, it is known by its identity. */
function refuseCircle(
  tree: { readonly graph: NodeSpec; readonly files: ReadonlyMap<string, SourceFile> },
  node: string,
  image: OpenedImage,
): void {
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
