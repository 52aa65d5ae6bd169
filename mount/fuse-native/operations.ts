/**
 * Answers the requests of libfuse on the main thread, by the same rules as mount/fuse/event-loop/dispatch.ts. libfuse
 * names files by path, and by handle for I/O.
 *
 * libfuse itself refuses with ENOSYS all operations that are not here: fallocate, ioctl, extended attributes. It never
 * gets lseek.
 */
import { errnoOf } from '../../drivers/errors.js';
import { E } from '../../system/libc.js';
import type { DiskNames } from '../labels/disk-names.js';
import { type CounterPages, countRequest, FLUSH, now, READ, WRITE } from '../ledger/counters.js';
import type { Ledger } from '../ledger/ledger.js';
import {
  kindOfDirectory,
  NAME_KINDS,
  type NameKind,
  nameDirectory,
  nameDirectoryId,
  nameLinkId,
} from '../transport/by-name.js';
import { BY_SLOT, BY_SLOT_NODE_ID, findLink, linkNodeId, linksAfter, linkTarget } from '../transport/by-slot.js';
import {
  attributesOf,
  directoryAttributes,
  flushFile,
  linkAttributes,
  mayHaveTakenError,
  type Ownership,
  refusalOfOpen,
  refusalOfSize,
  SUBDIRECTORIES,
  sizesOfBus,
} from '../transport/file-rules.js';
import type { IoGate } from '../transport/io-gate.js';
import type { Attributes, BusFile } from '../transport/transport.js';
import type { Tree, TreeNode } from '../transport/tree.js';
import { type OpenFile, OpenFiles } from './open-files.js';
import type { NativeOperations, NativeStat, Reply, ReplyWith } from './package.js';

const ROOT_NODE_ID = 1;
const LINKS = `/${BY_SLOT}`;
/** −1 as libfuse passes it: do not change the owner or group */
const UNCHANGED = 0xffffffff;

export interface OperationsContext {
  readonly tree: Tree;
  readonly ledger: Ledger;
  /** the counters of the main thread */
  readonly counters: CounterPages;
  readonly gate: IoGate;
  readonly names: DiskNames;
  readonly owner: Ownership;
  /** whether the file is leaving: its name may be visible, but it cannot be opened any more */
  isLeaving(nodeId: number): boolean;
  resizeRefused(name: string, size: number): void;
}

/** A request on a handle: its kind for the counters, its work, and its reply. */
interface IoCall {
  readonly fh: number;
  readonly kind: number;
  readonly begunMs: number;
  readonly reply: Reply;
  /** @returns the number of bytes */
  work(open: OpenFile): Promise<number>;
}

export class Operations {
  readonly #context: OperationsContext;
  readonly #openFiles: OpenFiles;

  constructor(context: OperationsContext) {
    this.#context = context;
    this.#openFiles = new OpenFiles(context.ledger);
  }

  /** The table of operations for the package. */
  table(): NativeOperations {
    const refuse = (reply: Reply): void => reply(-E.EPERM);
    return {
      ...this.#attributeCalls(),
      ...this.#ioCalls(),
      statfs: (_, reply) => reply(0, this.#sizes()),
      readdir: later(async (path, reply) => {
        const kind = kindOfDirectory(path.slice(1));
        const entries = kind !== undefined ? await this.#names(kind) : path === LINKS ? this.#links() : this.#files();
        const all = [['.', this.#directory()] as const, ['..', this.#directory()] as const, ...entries];
        reply(
          0,
          all.map(([name]) => name),
          all.map(([, stat]) => stat),
        );
      }),
      readlink: later(async (path, reply) => {
        const linked = this.#linked(path) ?? (await this.#named(path))?.node;
        if (linked !== undefined) return reply(0, linkTarget(linked));
        reply(isBelowLinks(path) ? -E.ENOENT : -E.EINVAL);
      }),
      fsyncdir: (_, _isDataOnly, _fh, reply) => reply(0),
      create: (_, _mode, reply) => refuse(reply),
      mknod: (_, _mode, _device, reply) => refuse(reply),
      unlink: (_, reply) => refuse(reply),
      rename: (_, _to, reply) => refuse(reply),
      link: (_, _to, reply) => refuse(reply),
      symlink: (_, _to, reply) => refuse(reply),
      mkdir: (_, _mode, reply) => refuse(reply),
      rmdir: (_, reply) => refuse(reply),
    };
  }

  #sizes(): Record<string, number> {
    const { blockBytes, blocks, files, nameBytes } = sizesOfBus(this.#context.tree.after(0).map(({ file }) => file));
    return { bsize: blockBytes, frsize: blockBytes, blocks, files, namemax: nameBytes };
  }

  #attributeCalls(): Pick<NativeOperations, 'getattr' | 'truncate' | 'ftruncate' | 'utimens' | 'chown' | 'chmod'> {
    const { ledger } = this.#context;
    const resize = (file: BusFile, size: number): number => {
      const refusal = refusalOfSize(file, size);
      if (refusal !== 0) this.#context.resizeRefused(file.name, size);
      return -refusal;
    };
    return {
      getattr: (path, reply) => {
        if (path === '/') return reply(0, this.#directory());
        if (path === LINKS) return reply(0, this.#linksDirectory());
        const linked = this.#linked(path);
        if (linked !== undefined) return reply(0, this.#link(linked));
        const kind = kindOfDirectory(path.slice(1));
        if (kind !== undefined) return reply(0, this.#namesDirectory(kind));
        if (isNamePath(path))
          return void later((path, reply: ReplyWith<NativeStat>) => this.#replyOfName(path, reply))(path, reply);
        const node = this.#find(path);
        if (node === undefined) return reply(-E.ENOENT);
        node.lookups += 1;
        reply(0, this.#stat(node.file));
      },
      truncate: (path, size, reply) => this.#change(path, reply, (file) => resize(file, size)),
      ftruncate: (_, fh, size, reply) => {
        const open = this.#openFiles.find(fh);
        const node = open && this.#context.tree.byId(open.file.nodeId);
        reply(node === undefined ? -E.EBADF : resize(node.file, size));
      },
      utimens: (path, atimeMs, mtimeMs, reply) =>
        this.#change(path, reply, ({ ledgerIndex }) => {
          ledger.setTimes(ledgerIndex, { atimeMs: fromMs(atimeMs), mtimeMs: fromMs(mtimeMs) }, Date.now());
          return 0;
        }),
      chown: (path, uid, gid, reply) =>
        this.#change(path, reply, ({ ledgerIndex }) => {
          ledger.setOwner(ledgerIndex, { ...(uid !== UNCHANGED && { uid }), ...(gid !== UNCHANGED && { gid }) });
          ledger.touchChange(ledgerIndex, Date.now());
          return 0;
        }),
      chmod: (path, mode, reply) =>
        this.#change(path, reply, ({ ledgerIndex }) => {
          ledger.setOwner(ledgerIndex, { mode: mode & 0o7777 });
          ledger.touchChange(ledgerIndex, Date.now());
          return 0;
        }),
    };
  }

  #ioCalls(): Pick<NativeOperations, 'open' | 'read' | 'write' | 'fsync' | 'release'> {
    return {
      open: (path, flags, reply) => {
        const node = this.#find(path);
        if (node === undefined || this.#context.isLeaving(node.file.nodeId)) return reply(-E.ENOENT);
        const refusal = refusalOfOpen(flags, node.file.disk.readOnly);
        if (refusal !== 0) return reply(-refusal);
        const fh = this.#openFiles.open(node.file, flags);
        reply(fh === 0 ? -E.ENFILE : 0, fh);
      },
      // biome-ignore lint/complexity/useMaxParams: the package fuse-native calls it with these
      read: (_, fh, buffer, length, offset, reply) => {
        const work = ({ file }: OpenFile): Promise<number> => file.disk.read(inside(buffer, length), clamp(offset));
        this.#io({ fh, kind: READ, begunMs: now(), reply, work });
      },
      // biome-ignore lint/complexity/useMaxParams: the package fuse-native calls it with these
      write: (_, fh, buffer, length, offset, reply) => {
        const work = (open: OpenFile): Promise<number> => this.#write(open, inside(buffer, length), clamp(offset));
        this.#io({ fh, kind: WRITE, begunMs: now(), reply, work });
      },
      fsync: (_, _isDataOnly, fh, reply) => {
        this.#io({ fh, kind: FLUSH, begunMs: now(), reply, work: ({ file }) => this.#flush(fh, file) });
      },
      release: (_, fh, reply) => {
        this.#openFiles.close(fh);
        reply(0);
      },
    };
  }

  /** Changes attributes of a file; `change` returns 0 or −errno. */
  #change(path: string, reply: Reply, change: (file: BusFile) => number): void {
    const [directory = ''] = path.slice(1).split('/');
    if (path === '/' || path.startsWith(LINKS) || kindOfDirectory(directory) !== undefined) return reply(-E.EPERM);
    const node = this.#find(path);
    reply(node === undefined ? -E.ENOENT : change(node.file));
  }

  #io(call: IoCall): void {
    const { gate, tree } = this.#context;
    const open = this.#openFiles.find(call.fh);
    if (open === undefined) return call.reply(-E.EBADF);
    const { nodeId } = open.file;
    const node = tree.byId(nodeId);
    // the file was removed: its handles are still open, but its disk is closed
    if (node === undefined) return call.reply(-E.EIO);
    if (gate.putAside(nodeId, () => this.#io(call))) return;
    // a swap may have given it another disk since the open
    gate.track(nodeId, this.#serve(call, { ...open, file: node.file }));
  }

  async #serve({ kind, begunMs, reply, work }: IoCall, open: OpenFile): Promise<void> {
    const result = await work(open).catch((error: unknown) => -errnoOf(error));
    countRequest(this.#context.counters.of(open.file.ledgerIndex), kind, now() - begunMs, result);
    reply(result);
  }

  async #write({ file, isDurable }: OpenFile, data: Uint8Array, offset: number): Promise<number> {
    const { ledger } = this.#context;
    try {
      const n = await file.disk.write(data, offset, { durable: isDurable });
      ledger.noteWrite(file.ledgerIndex, Date.now());
      return n;
    } catch (error) {
      const errno = errnoOf(error);
      ledger.noteFailedWrite(file.ledgerIndex);
      if (isDurable && mayHaveTakenError(errno, offset, file.disk.size)) ledger.noteFlushError(file.flushIndex, errno);
      throw error;
    }
  }

  async #flush(fh: number, file: BusFile): Promise<number> {
    await flushFile(file, this.#context.ledger);
    return -this.#openFiles.takeFlushError(fh, file);
  }

  #find(path: string): TreeNode | undefined {
    return this.#context.tree.byName(path.slice(1));
  }

  /** The vbd that a path below the directory of links leads to. */
  #linked(path: string): TreeNode | undefined {
    return path.startsWith(`${LINKS}/`) ? findLink(this.#context.tree, path.slice(LINKS.length + 1)) : undefined;
  }

  /** The link that a path below a directory of names leads to. */
  async #named(path: string): Promise<{ kind: NameKind; node: TreeNode } | undefined> {
    const [directory = '', name = ''] = path.slice(1).split('/');
    const kind = kindOfDirectory(directory);
    const node = kind === undefined ? undefined : await this.#context.names.find(kind, name);
    return kind === undefined || node === undefined ? undefined : { kind, node };
  }

  async #replyOfName(path: string, reply: ReplyWith<NativeStat>): Promise<void> {
    const named = await this.#named(path);
    if (named === undefined) reply(-E.ENOENT);
    else reply(0, this.#nameLink(named.kind, named.node));
  }

  async #names(kind: NameKind): Promise<[string, NativeStat][]> {
    const links = await this.#context.names.linksAfter(kind, 0);
    return links.map(({ name, node }) => [name, this.#nameLink(kind, node)]);
  }

  #nameLink(kind: NameKind, node: TreeNode): NativeStat {
    return nativeStat(linkAttributes(nameLinkId(kind, node), linkTarget(node), this.#context.owner));
  }

  #namesDirectory(kind: NameKind): NativeStat {
    return nativeStat(directoryAttributes(nameDirectoryId(kind), this.#context.owner));
  }

  #files(): [string, NativeStat][] {
    const files = this.#context.tree.after(0).map(({ file }): [string, NativeStat] => [file.name, this.#stat(file)]);
    const names = NAME_KINDS.map((kind): [string, NativeStat] => [nameDirectory(kind), this.#namesDirectory(kind)]);
    return [...files, [BY_SLOT, this.#linksDirectory()], ...names];
  }

  #links(): [string, NativeStat][] {
    return linksAfter(this.#context.tree, 0).map(({ name, node }) => [name, this.#link(node)]);
  }

  #link(node: TreeNode): NativeStat {
    return nativeStat(linkAttributes(linkNodeId(node), linkTarget(node), this.#context.owner));
  }

  #linksDirectory(): NativeStat {
    return nativeStat(directoryAttributes(BY_SLOT_NODE_ID, this.#context.owner));
  }

  #stat(file: BusFile): NativeStat {
    return nativeStat(attributesOf(file, this.#context.ledger, false));
  }

  #directory(): NativeStat {
    return nativeStat(directoryAttributes(ROOT_NODE_ID, this.#context.owner, SUBDIRECTORIES));
  }
}

/**
 * A call that answers when disks were read. It always answers: the client would hang, and an error that nobody handles ends
 * a server that has no successor.
 */
export function later<AnyReply extends (status: number) => void>(
  answer: (path: string, reply: AnyReply) => Promise<void>,
): (path: string, reply: AnyReply) => void {
  return (path, reply) => {
    answer(path, reply).catch((error: unknown) => reply(-errnoOf(error)));
  };
}

/** Whether a path is below a directory of names. */
function isNamePath(path: string): boolean {
  const [directory = '', name] = path.slice(1).split('/');
  return name !== undefined && kindOfDirectory(directory) !== undefined;
}

function isBelowLinks(path: string): boolean {
  return path.startsWith(`${LINKS}/`) || isNamePath(path);
}

function nativeStat(attributes: Attributes): NativeStat {
  const { mode, uid, gid, size, links, blocks, atimeSec, atimeNsec, mtimeSec, mtimeNsec, ctimeSec, ctimeNsec } =
    attributes;
  return {
    ...{ mode, uid, gid, size, nlink: links, blocks, blksize: 4096 },
    atime: toMs(atimeSec, atimeNsec),
    mtime: toMs(mtimeSec, mtimeNsec),
    ctime: toMs(ctimeSec, ctimeNsec),
  };
}

/** Times of the package are unsigned milliseconds. */
function toMs(sec: number, nsec: number): number {
  return Math.max(0, sec * 1000 + Math.floor(nsec / 1e6));
}

/** A time before 1970 arrives as a number near 2^64. */
function fromMs(ms: number): number {
  return ms < 2 ** 53 ? ms : 0;
}

/** All offsets beyond 2^53 have the same effect: they are beyond the end of every disk. */
function clamp(offset: number): number {
  return Math.min(offset, Number.MAX_SAFE_INTEGER);
}

function inside(buffer: Uint8Array, length: number): Uint8Array {
  return buffer.byteLength === length ? buffer : buffer.subarray(0, length);
}
