/**
 * Maps images for mapped-write.ts: the main thread's side. It maps a window before threads serve it, and unmaps it
 * when no thread serves it any more.
 *
 * Pages that were written count as the process's memory (its shared RSS), which the kernel's OOM killer looks at. So
 * when no large write has come for a second, or the pages exceed 1 GiB, they are removed from the process. The image
 * keeps them.
 */
import { readFileSync } from 'node:fs';
import type { Window } from '../../../drivers/driver.js';
import { forgetMapped, mapFile, unmapFile } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { fileSystemOf } from '../../../system/proc.js';

const LOOK_MS = 1000;
const MAX_TOUCHED_BYTES = 1 << 30;

interface Mapping {
  readonly address: number;
  readonly length: number;
}

export interface MappedWindowsOptions {
  /** whether any thread has written since the last call */
  takeUse(): boolean;
  /** called when no thread has written for a while */
  idle?(): void;
  /** whether files on tmpfs are mapped; they may shrink */
  readonly mapsFiles: boolean;
}

export class MappedWindows {
  readonly #mappings = new Map<number, Mapping>();
  readonly #takeUse: () => boolean;
  readonly #idle: () => void;
  #mapsFiles: boolean;
  #timer: NodeJS.Timeout | null = null;

  constructor({ takeUse, idle = () => {}, mapsFiles }: MappedWindowsOptions) {
    this.#takeUse = takeUse;
    this.#idle = idle;
    this.#mapsFiles = mapsFiles;
  }

  /** Maps no more files; those that are mapped stay until they are unmapped. */
  onlyMemory(): void {
    this.#mapsFiles = false;
  }

  /**
   * Maps a window, if it is not mapped yet.
   * @returns the address of the window's first byte; 0 if it is not mapped, because it is not in memory or cannot be
   */
  map(nodeId: number, window: Window): number {
    if (window.readOnly || !this.#isInMemory(window)) return 0;
    const skip = window.start % PAGE_BYTES;
    const known = this.#mappings.get(nodeId);
    if (known !== undefined) return known.address + skip;
    const length = skip + window.size;
    const address = mapFile(window.fd, window.start - skip, length);
    if (address === null) return 0;
    this.#mappings.set(nodeId, { address, length });
    return address + skip;
  }

  #isInMemory({ kind, fd }: Window): boolean {
    if (kind === 'memory') return true;
    return this.#mapsFiles && kind === 'file' && fileSystemOf(fd) === 'tmpfs';
  }

  /** Call only when no thread serves the window. */
  unmap(nodeId: number): void {
    const mapping = this.#mappings.get(nodeId);
    if (mapping === undefined) return;
    this.#mappings.delete(nodeId);
    unmapFile(mapping.address, mapping.length);
  }

  /** A thread has written. */
  used(): void {
    this.#timer ??= setTimeout(() => this.#look(), LOOK_MS).unref();
  }

  #look(): void {
    this.#timer = null;
    const isUsed = this.#takeUse();
    if (isUsed) this.used();
    else this.#idle();
    if (isUsed && touchedBytes() < MAX_TOUCHED_BYTES) return;
    for (const { address, length } of this.#mappings.values()) forgetMapped(address, length);
  }
}

/** The size of the mapped file pages that this process has touched. */
function touchedBytes(): number {
  const [, , shared] = readFileSync('/proc/self/statm', 'latin1').split(' ');
  return Number(shared) * PAGE_BYTES;
}
