/**
 * Resize: a vbd gets the size that its image has now, as losetup -c does. It only grows.
 *
 *      image measured → size of the disk (filters, driver) found out → noted here → server: disk opened again
 *
 * The size is noted before the server is asked, so a server that is started meanwhile opens the disk with the new size:
 * a write behind the old end that was acknowledged is never behind the end again.
 */
import { fstat } from 'node:fs';
import { promisify } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { hasThirdParty, isSimple } from '../../../drivers/graph.js';
import { named } from '../../../drivers/quote.js';
import { blockDeviceSize } from '../../../system/libc.js';
import { identityOf, type OpenedImage } from '../../images/open-image.js';
import { logEvent } from '../../runtime/log.js';
import type { AttachCommand } from '../../server/commands.js';
import type { AttachContext } from '../sources/attach-context.js';
import { isServerDeath } from '../supervision/server-process.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { attachCommand } from './attach.js';

const fstatAsync = promisify(fstat);

/** What a resize needs of the keeper. */
export interface Resizing {
  readonly bus: BusParts;
  readonly context: AttachContext;
}

/** @throws FusetapError UNSUPPORTED for a ram image and a disk on a network; USAGE if the image is smaller than it was; nothing has changed */
export async function resize({ bus, context }: Resizing, vbd: Vbd, signal: AbortSignal): Promise<void> {
  await bus.activities.run(vbd, 'resizing', signal, async (given) => {
    const { memory, image, graph, kept } = vbd.source;
    if (kept !== null) throw isRemote(vbd);
    if (memory !== null) throw isCopy(vbd);
    if (!isSimple(graph)) throw isTree(vbd);
    await bus.images.mustAnswer(bus, vbd);
    const imageBytes = image === null ? null : await measure(image);
    if (image !== null && imageBytes !== null && imageBytes < image.sizeBytes) throw hasShrunk(vbd, image, imageBytes);
    if (image !== null) vbd.source.holdings.find(identityOf(image))?.claim.grow();
    const once = hasThirdParty(graph);
    const { size: _, ...opened } = vbd;
    const attach = withSize(attachCommand(opened, bus.memories), imageBytes);
    const asked = bus.server.request<'sizeOf'>({ op: 'sizeOf', attach }, { once });
    const { size } = await bus.images.whileAnswering(bus, vbd, asked);
    if (size < vbd.size) throw wouldShrink(vbd, size);
    given.throwIfAborted();
    await setSize({ bus, context }, vbd, { size, imageBytes });
  });
}

interface Sizes {
  readonly size: number;
  /** null if there is no image */
  readonly imageBytes: number | null;
}

async function setSize({ bus, context }: Resizing, vbd: Vbd, { size, imageBytes }: Sizes): Promise<void> {
  const { image, graph } = vbd.source;
  const old = { size: vbd.size, imageBytes: image?.sizeBytes ?? null };
  note(vbd, { size, imageBytes });
  try {
    const attach = attachCommand(vbd, bus.memories);
    const command = { op: 'resize', attach, facts: context.facts(vbd) } as const;
    await bus.server.request<'resize'>(command, { once: hasThirdParty(graph) });
  } catch (error) {
    // the next server has opened the disk with the new size
    if (!isServerDeath(error)) note(vbd, old);
    throw error;
  }
  if (vbd.broken !== null) {
    vbd.broken = null;
    logEvent({ event: 'mended', vdev: vbd.vdev });
  }
  if (image !== null) await bus.images.accept(bus, vbd, image);
  bus.record();
  if (size !== old.size) logEvent({ event: 'resized', vdev: vbd.vdev, size, oldSize: old.size });
}

function note(vbd: Vbd, { size, imageBytes }: Sizes): void {
  vbd.size = size;
  const { image } = vbd.source;
  if (image !== null && imageBytes !== null) image.sizeBytes = imageBytes;
}

async function measure({ kind, fd }: OpenedImage): Promise<number> {
  return kind === 'block' ? blockDeviceSize(fd) : (await fstatAsync(fd)).size;
}

/** The same command, but with another size of the image. */
function withSize(command: AttachCommand, imageBytes: number | null): AttachCommand {
  const { file } = command.disk.files;
  if (file === undefined || imageBytes === null) return command;
  return { ...command, disk: { ...command.disk, files: { file: { ...file, sizeBytes: imageBytes } } } };
}

/** Two clients of one server would take the disk from each other. */
function isRemote({ vdev }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} keeps its size: its bytes are at the other end of a network`, {
    hint: 'detach it and attach it again',
  });
}

function isTree({ vdev, source }: Vbd): FusetapError {
  const message = `${vdev} cannot grow while it is attached: only a disk that is one image can, and its driver is ${source.driver}`;
  return new FusetapError('UNSUPPORTED', message, { hint: 'detach it and attach it again' });
}

function isCopy({ vdev, source: { memory, driver } }: Vbd): FusetapError {
  if (memory?.isOwn) {
    return new FusetapError('UNSUPPORTED', `${vdev} keeps its size: its driver is ${driver}`, {
      hint: 'detach it and attach the image again; fusetap save keeps what was written',
    });
  }
  return new FusetapError('UNSUPPORTED', `${vdev} is a copy in memory, which keeps its size`, {
    hint: 'detach it and attach the image again: the new copy has the size of the image',
  });
}

function hasShrunk({ vdev }: Vbd, { path, sizeBytes }: OpenedImage, nowBytes: number): FusetapError {
  return new FusetapError(
    'USAGE',
    `${named(path)} had ${sizeBytes} bytes, and has ${nowBytes} now: ${vdev} only grows`,
    {
      hint: 'make the image as large again, or detach and attach it',
      path,
    },
  );
}

function wouldShrink({ vdev, size }: Vbd, nowBytes: number): FusetapError {
  return new FusetapError('USAGE', `${vdev} has ${size} bytes, and would have ${nowBytes}: it only grows`, {
    hint: 'detach and attach it',
  });
}
