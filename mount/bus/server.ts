/**
 * The server: opens disks with their drivers and gives them to the transport. It holds nothing that cannot be rebuilt
 * from what the keeper tells it.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { ImageFile, OpenContext } from '../../drivers/driver.js';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { loadDriver } from '../../drivers/registry.js';
import type { Ledger } from '../ledger.js';
import type { Transport } from '../transport.js';
import { takeMarks } from './image-claim.js';
import type { AttachCommand, CommandResult, Commands, ImageRef, PrepareCommand } from './ipc.js';

interface Served {
  readonly name: string;
  readonly disk: Disk;
  readonly ledgerIndex: number;
  /** the server's own descriptors of image and memory */
  readonly fds: readonly number[];
}

export class Server {
  readonly #keeperPid: number;
  readonly #transport: Transport;
  readonly #ledger: Ledger;
  readonly #served = new Map<number, Served>();

  constructor(keeperPid: number, transport: Transport, ledger: Ledger) {
    this.#keeperPid = keeperPid;
    this.#transport = transport;
    this.#ledger = ledger;
  }

  async describe(driver: string): Promise<CommandResult<'describe'>> {
    const { image, sharesMemory } = await loadDriver(driver);
    return { image, sharesMemory: sharesMemory ?? false };
  }

  async prepare(
    command: PrepareCommand,
    signal: AbortSignal,
    progress: (doneBytes: number, totalBytes: number) => void,
  ): Promise<CommandResult<'prepare'>> {
    const driver = await loadDriver(command.driver);
    const fds: number[] = [];
    try {
      const image = command.image && this.#openImage(command.image, true, fds);
      const memory = { fd: this.#openKeepers(command.memoryFd, false, fds) };
      const state = await driver.prepare?.({ image, memory, options: command.options, signal, progress });
      return { state: state ?? null };
    } finally {
      for (const fd of fds) closeSync(fd);
    }
  }

  async attach(command: AttachCommand): Promise<CommandResult<'attach'>> {
    const { nodeId, ledgerIndex, name, mode } = command;
    const readOnly = mode === 'r';
    const fds: number[] = [];
    try {
      const driver = await loadDriver(command.driver);
      const image = command.image && this.#openImage(command.image, readOnly, fds);
      // the marks stay for as long as either process holds the image
      if (image !== null && !takeMarks(image.fd, mode)) {
        throw new FusetapError('BUSY', `somebody has just locked the image for writing: ${image.path}`);
      }
      const memory = command.memoryFd === null ? null : { fd: this.#openKeepers(command.memoryFd, readOnly, fds) };
      const context: OpenContext = { image, memory, state: command.state, readOnly, options: command.options };
      const disk = frontDisk(await driver.open(context), { readOnly });
      this.#served.set(nodeId, { name, disk, ledgerIndex, fds });
      this.#transport.add({ nodeId, ledgerIndex, name, disk, inherited: command.inherited });
      if (command.leaving) this.#transport.setLeaving(nodeId, true);
      return { size: disk.size };
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
  }

  async leave({ nodeId, leaving }: Commands['leave']['command']): Promise<CommandResult<'leave'>> {
    return { held: this.#transport.setLeaving(nodeId, leaving) };
  }

  async detach(nodeId: number): Promise<CommandResult<'detach'>> {
    const served = this.#served.get(nodeId);
    if (served === undefined) throw new FusetapError('NOT_FOUND', `no file with node id ${nodeId}`);
    this.#served.delete(nodeId);
    await this.#transport.remove(nodeId);
    const flushError = await this.#flush(served);
    await served.disk.close();
    for (const fd of served.fds) closeSync(fd);
    return { flushError: flushError?.toJSON() ?? null };
  }

  /** @returns why acknowledged writes may be lost: this flush failed, or an earlier one did */
  async #flush({ name, disk, ledgerIndex }: Served): Promise<FusetapError | null> {
    try {
      await disk.flush();
    } catch (error) {
      return toFusetapError(error, `the last flush of ${name} failed`, { operation: 'flush' });
    }
    const { count, errno } = this.#ledger.flushErrors(ledgerIndex);
    if (count === 0) return null;
    return new FusetapError('FAILED', `a flush of ${name} failed while it was attached`, { errno, operation: 'flush' });
  }

  #openImage(ref: ImageRef, readOnly: boolean, fds: number[]): ImageFile {
    const fd = this.#openKeepers(ref.fd, readOnly, fds);
    return { fd, path: ref.path, sizeBytes: ref.sizeBytes, kind: ref.kind };
  }

  /** Opens what the keeper holds, never a path: names may have come to mean something else. */
  #openKeepers(fd: number, readOnly: boolean, fds: number[]): number {
    const access = readOnly ? constants.O_RDONLY : constants.O_RDWR;
    const own = openSync(`/proc/${this.#keeperPid}/fd/${fd}`, access);
    fds.push(own);
    return own;
  }
}
