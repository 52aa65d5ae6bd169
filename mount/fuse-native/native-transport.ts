/**
 * The transport on the package fuse-native: libfuse 2 speaks with the kernel on threads of its own and calls us on the
 * main thread. It mounts here in the server, so the mount ends with the server, and the server cannot be replaced.
 */
import { readdirSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { CAP_SYS_ADMIN, hasCapability } from '../../system/capabilities.js';
import { setCloseOnExec } from '../../system/libc.js';
import { findFusermount } from '../../system/programs.js';
import { lookUpInode } from '../holders/look-up.js';
import { DiskNames } from '../labels/disk-names.js';
import { CounterPages, MAIN_AREA } from '../ledger/counters.js';
import type { Ledger } from '../ledger/ledger.js';
import type { Ownership } from '../transport/file-rules.js';
import { IoGate } from '../transport/io-gate.js';
import type { BusFile, NamesOfFile, Transport, TransportEvents } from '../transport/transport.js';
import { Tree } from '../transport/tree.js';
import { FUSE_NATIVE_ABILITIES } from './abilities.js';
import { awaitForgotten } from './await-forgotten.js';
import { Operations } from './operations.js';
import { mountNative } from './package.js';

const DEVICE = '/dev/fuse';
/** how often to check the descriptor of the device, because libfuse does not tell when it stops */
const WATCH_MS = 500;

export interface FuseNativeOptions {
  readonly mountpoint: string;
  /** other users may use the bus */
  readonly allowOther: boolean;
  readonly ledger: Ledger;
  readonly statsFd: number;
  readonly owner: Ownership;
  readonly events: TransportEvents;
}

export class FuseNativeTransport implements Transport {
  readonly abilities = FUSE_NATIVE_ABILITIES;
  readonly #options: FuseNativeOptions;
  readonly #tree = new Tree();
  readonly #gate = new IoGate();
  readonly #names: DiskNames;
  /** files that are leaving; the controller ends the search for their users */
  readonly #leaving = new Map<number, AbortController>();

  constructor(options: FuseNativeOptions) {
    this.#options = options;
    this.#names = new DiskNames({ tree: this.#tree, ledger: options.ledger, gate: this.#gate });
  }

  /** Mounts. @throws FusetapError DENIED, UNSUPPORTED, FAILED */
  async load(): Promise<void> {
    const { mountpoint, allowOther, ledger, statsFd, owner, events } = this.#options;
    if (!hasCapability(CAP_SYS_ADMIN) && findFusermount() === null) {
      throw new FusetapError('UNSUPPORTED', `cannot mount a bus on ${mountpoint}: fusermount is not installed`, {
        hint: 'apt install fuse3 (dnf install fuse), or run it as root',
        path: mountpoint,
      });
    }
    const operations = new Operations({
      tree: this.#tree,
      ledger,
      counters: new CounterPages(statsFd, MAIN_AREA),
      gate: this.#gate,
      names: this.#names,
      owner,
      isLeaving: (nodeId) => this.#leaving.has(nodeId),
      resizeRefused: (name, size) => events.resizeRefused(name, size),
    });
    await mountNative(mountpoint, operations.table(), { allowOther });
    this.#watchDevice(findDevice());
  }

  /** Does nothing: libfuse serves as soon as it has mounted, and the bus has no files until now. */
  start(): void {}

  async add(file: BusFile): Promise<void> {
    this.#tree.add(file);
  }

  setLeaving(nodeId: number, leaving: boolean): boolean {
    const node = this.#tree.byId(nodeId);
    if (node === undefined) return false;
    this.#leaving.get(nodeId)?.abort();
    this.#leaving.delete(nodeId);
    node.leaving = leaving;
    // there was no lookup since the file was last known not to be in use
    if (!leaving || node.lookups === 0) {
      if (leaving) this.#leaving.set(nodeId, new AbortController());
      return node.lookups !== 0;
    }
    void this.#askWhetherHeld(nodeId);
    return true;
  }

  async #askWhetherHeld(nodeId: number): Promise<void> {
    const node = this.#tree.byId(nodeId);
    if (node === undefined) return;
    const abort = new AbortController();
    this.#leaving.set(nodeId, abort);
    const path = join(this.#options.mountpoint, node.file.name);
    const show = (visible: boolean): void => {
      node.leaving = !visible;
    };
    if (!(await awaitForgotten({ show, lookUp: () => lookUpInode(path) }, abort.signal))) return;
    node.lookups = 0;
    this.#options.events.forgotten(nodeId);
  }

  pause(nodeId: number): Promise<void> {
    return this.#gate.pause(nodeId);
  }

  resume(nodeId: number): void {
    this.#gate.resume(nodeId);
  }

  async swap(nodeId: number, { disk }: Pick<BusFile, 'disk'>): Promise<void> {
    const node = this.#tree.byId(nodeId);
    if (node !== undefined) node.file = { ...node.file, disk };
  }

  names(): Promise<NamesOfFile[]> {
    return this.#names.all();
  }

  oldestNameReadMs(): number {
    return this.#names.oldestReadMs();
  }

  /** Nothing is passed through here. */
  makeKernelForget(): void {}

  noSuccessor(): void {}

  async remove(nodeId: number): Promise<void> {
    this.#leaving.get(nodeId)?.abort();
    this.#leaving.delete(nodeId);
    this.#tree.remove(nodeId);
    // requests that wait get EIO, as do all new ones
    this.#gate.resume(nodeId);
    await this.#gate.idle(nodeId);
  }

  /** libfuse closes the device when the mount is gone or its connection was aborted. */
  #watchDevice(fd: number): void {
    // libfuse lets our children inherit the device; a child that looks at the bus would then wait for itself
    setCloseOnExec(fd);
    const timer = setInterval(() => {
      if (leadsToDevice(String(fd))) return;
      clearInterval(timer);
      this.#options.events.gone();
    }, WATCH_MS);
    timer.unref();
  }
}

const OWN_FDS = '/proc/self/fd';

function findDevice(): number {
  const fd = readdirSync(OWN_FDS).find(leadsToDevice);
  if (fd === undefined) throw new FusetapError('FAILED', `libfuse has mounted, but has no ${DEVICE}`);
  return Number(fd);
}

function leadsToDevice(fd: string): boolean {
  try {
    return readlinkSync(join(OWN_FDS, fd)) === DEVICE;
  } catch {
    return false;
  }
}
