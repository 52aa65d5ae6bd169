/**
 * What the tree of a disk needs to be opened, as far as its drivers tell without reading an image.
 */
import type { Driver, Role } from '../driver.js';
import { FusetapError } from '../errors.js';
import { checkGraph, isFile, MOST_FILES, type NodeSpec, nodesOf, pathOf } from '../graph.js';
import { quoted } from '../quote.js';
import { loadDriver } from '../registry.js';

/** How a file of a tree is opened. */
export interface FilePlan {
  /** never for writing, whatever the mode of the vbd */
  readonly isRead: boolean;
  /** its bytes are shown as they are, so it must not look like another format */
  readonly isRaw: boolean;
  /** writes of the vbd change its size; default: false */
  readonly grows?: boolean;
}

/** Plain data. */
export interface GraphPlan {
  /** by path */
  readonly files: Readonly<Record<string, FilePlan>>;
  /** the nodes with memory that outlives a server, by path */
  readonly scratch: Readonly<Record<string, 'own' | 'shared'>>;
  /** an image may name more files */
  readonly mayNeed: boolean;
  /** the nodes whose driver repairs its image, by path, if that is open for writing; an older server omits it */
  readonly repair?: readonly string[];
  /** the path of what `commit` of the disk writes; null if there is no base; an older server omits it */
  readonly base?: string | null;
  /** the name by which the bytes of a remote disk are claimed (rule 8); null or omitted: its files are claimed */
  readonly claims?: string | null;
  /** the remote disk is only read; omitted: it is used as the disk */
  readonly claimsRead?: boolean;
}

/** The role of a driver by that name; undefined if it has none. */
export function roleOf({ roles }: Pick<Driver, 'roles'>, name: string): Role | undefined {
  if (Object.hasOwn(roles, name)) return roles[name]?.many ? undefined : roles[name];
  const [, stem = ''] = /^([a-z]+)(?:0|[1-9]\d*)$/.exec(name) ?? [];
  return Object.hasOwn(roles, stem) && roles[stem]?.many ? roles[stem] : undefined;
}

/**
 * Loads the drivers of a tree and checks it.
 * @throws FusetapError USAGE if a driver is given what it does not take, or lacks what it needs; errors of loadDriver
 */
export async function planGraph(graph: NodeSpec): Promise<GraphPlan> {
  checkGraph(graph);
  const files: Record<string, FilePlan> = {};
  const scratch: Record<string, 'own' | 'shared'> = {};
  const repair: string[] = [];
  /** nodes that are only read, nodes whose bytes are not those of the disk, and nodes that grow */
  const [read, changed, grown] = [new Set<string>(), new Set<string>(), new Set<string>()];
  /** nodes that read nothing of what is below when they are opened */
  const unread = new Set<string>();
  /** nodes that are only read until the memory above them is filled */
  const copied = new Set<string>();
  let claims: { readonly name: string; readonly isRead: boolean } | null = null;
  let mayNeed = false;
  for (const [path, node] of nodesOf(graph)) {
    const driver = await loadDriver(node.driver);
    checkNode(driver, node);
    if (driver.isRemote) {
      const isBelow = driver.onlyReads === true && (copied.has(path) || areUnread(path, unread)) && read.has(path);
      if (path !== '' && !isBelow) throw mustBeTop(driver.name, graph.driver);
      claims = { name: await claimsOf(driver, node), isRead: read.has(path) || driver.onlyReads === true };
    }
    if (driver.opensUnread) unread.add(path);
    mayNeed ||= driver.needs !== undefined;
    if (driver.scratch !== undefined) scratch[path] = driver.scratch;
    // what is below shared memory is only copied
    const isCopied = driver.scratch === 'shared';
    if (driver.repair !== undefined && !isCopied && !read.has(path)) repair.push(path);
    for (const [name, below] of Object.entries(node.on)) {
      const at = pathOf(path, name);
      const { access } = roleOf(driver, name) as Role;
      const isRead = access === 'read' || isCopied || read.has(path);
      const isRaw = driver.rawImage === true && !changed.has(path);
      // a driver of files shows all of its file
      const isGrown = driver.grows === true || (grown.has(path) && driver.roles.file?.takes === 'file');
      const grows = name === 'file' && isGrown && !isRead;
      if (isFile(below)) files[at] = { isRead, isRaw, ...(grows && { grows }) };
      else if (!isRaw) changed.add(at);
      if (isRead) read.add(at);
      if (isCopied || copied.has(path)) copied.add(at);
      if (grows) grown.add(at);
    }
  }
  const most = Object.keys(files).length + Object.keys(scratch).length;
  if (most > MOST_FILES) {
    throw new FusetapError('USAGE', `the disk has ${most} files and memories: the most are ${MOST_FILES}`, {
      hint: 'make several disks of it',
    });
  }
  const top = await loadDriver(graph.driver);
  const { base } = top;
  const written = base !== undefined && Object.hasOwn(graph.on, base) ? base : null;
  return {
    files,
    scratch,
    mayNeed,
    repair,
    base: written,
    ...(claims !== null && { claims: claims.name, claimsRead: claims.isRead }),
  };
}

/** The name by which a remote disk is claimed. */
async function claimsOf({ claims, name }: Driver, { options }: NodeSpec): Promise<string> {
  return (await claims?.(options)) ?? `${name} ${JSON.stringify(Object.entries(options).sort())}`;
}

/** Whether a takeover opens the disk at that path without reading it. @param unread drivers with `opensUnread` */
function areUnread(path: string, unread: ReadonlySet<string>): boolean {
  const above = path.split('/').map((_, depth, roles) => roles.slice(0, depth).join('/'));
  return above.every((each) => unread.has(each));
}

/** A driver may read what is below it when it is opened: a takeover would wait for the network. */
function mustBeTop(remote: string, top: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `driver ${top} cannot be over a disk of ${remote}`, {
    hint: `attach the disk of ${remote} itself`,
  });
}

function checkNode(driver: Driver, { driver: name, options, on }: NodeSpec): void {
  for (const [role, below] of Object.entries(on)) {
    const taken = roleOf(driver, role);
    if (taken === undefined && role === 'file' && isFile(below)) {
      throw new FusetapError('USAGE', `driver ${name} takes no image: ${below.file}`);
    }
    if (taken === undefined) throw new FusetapError('USAGE', `driver ${name} takes nothing under ${quoted(role)}`);
    if (taken.takes === 'disk' || isFile(below)) continue;
    throw new FusetapError('USAGE', `driver ${name} takes a file, not the disk of ${below.driver}`, {
      hint: `use ${below.driver} alone`,
    });
  }
  driver.check?.(options);
}

/**
 * @throws FusetapError USAGE if a driver lacks what it cannot do without. It is not asked for what is below memory that
 *   exists already
 */
export function checkComplete(driver: Driver, { driver: name, on }: NodeSpec): void {
  for (const [role, { isOptional = false, many = false }] of Object.entries(driver.roles)) {
    const isGiven = many ? Object.keys(on).some((given) => roleOf(driver, given)?.many) : Object.hasOwn(on, role);
    if (isGiven || isOptional) continue;
    if (role === 'file') {
      throw new FusetapError('USAGE', `driver ${name} needs an image`, { hint: `give one as ${name}:PATH` });
    }
    throw new FusetapError('USAGE', `driver ${name} needs something under ${quoted(role)}`, {
      hint: 'docs/drivers.md has the roles of each driver',
    });
  }
}
