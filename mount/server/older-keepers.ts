/**
 * Commands of keepers of earlier versions, which have disks of one driver over one image: translated where they arrive.
 * After an upgrade such a keeper stays and gets a server of this version.
 */
import type { Json } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { simpleGraph } from '../../drivers/graph.js';
import { loadDriver } from '../../drivers/registry.js';
import type { RamLink } from '../ram/links.js';
import type {
  AttachCommand,
  Command,
  DescribeCommand,
  DriverFacts,
  Envelope,
  GraphRef,
  ImageRef,
  MemoryRef,
} from './commands.js';

type Options = Readonly<Record<string, string>>;

interface OlderDisk {
  readonly driver: string;
  readonly image: ImageRef | null;
  readonly options: Options;
}

type OlderAttach = Omit<AttachCommand, 'disk'> &
  OlderDisk & { readonly memoryFd: number | null; readonly memoryLink?: RamLink | null; readonly state: Json | null };

type OlderCommand =
  | OlderAttach
  | { readonly op: 'swap' | 'sizeOf' | 'resize'; readonly attach: OlderAttach }
  | (OlderDisk & { readonly op: 'measure' | 'prepare'; readonly memoryFd?: number });

/** A command as this version has it. */
export function translated({ command }: Pick<Envelope, 'command'>): Command {
  const older = command as unknown as OlderCommand;
  switch (older.op) {
    case 'attach':
      return 'disk' in older ? (older as unknown as Command) : translatedAttach(older);
    case 'swap':
    case 'sizeOf':
    case 'resize':
      if ('disk' in older.attach) return command;
      return { ...older, attach: translatedAttach(older.attach) } as unknown as Command;
    case 'measure':
    case 'prepare':
      if ('disk' in older) return command;
      return {
        ...{ op: older.op, node: '', path: older.image?.path ?? '', memoryFd: older.memoryFd ?? -1 },
        disk: diskOf(older, {}),
      } as Command;
    default:
      return command;
  }
}

function translatedAttach(older: OlderAttach): AttachCommand {
  const { image, memoryFd, memoryLink = null, state, options, ...same } = older;
  const memory = memoryFd === null ? {} : { '': { fd: memoryFd, link: memoryLink, state } };
  return { ...same, disk: diskOf({ driver: older.driver, image, options }, memory) };
}

function diskOf({ driver, image, options }: OlderDisk, memories: Record<string, MemoryRef>): GraphRef {
  return {
    graph: simpleGraph(driver, image?.path ?? null, options),
    files: image === null ? {} : { file: image },
    memories,
  };
}

export async function describe({ driver: name }: DescribeCommand): Promise<DriverFacts> {
  const { roles, scratch, rawImage = false, needs } = await loadDriver(name);
  if (needs !== undefined || scratch === 'own') {
    const message = `driver ${name} needs a bus of this version: the keeper of this bus is older`;
    throw new FusetapError('UNSUPPORTED', message, { hint: 'use another bus (--bus NAME), or stop this one first' });
  }
  return { image: roles.file === undefined ? 'none' : 'required', sharesMemory: scratch === 'shared', rawImage };
}
