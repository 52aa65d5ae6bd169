/**
 * A vbd as its keeper knows it: all that is needed to show it, to open it in a new server, and to let it go.
 */
import type { Json } from '../../drivers/driver.js';
import type { Claim } from './image-claim.js';
import type { Mode } from './interface.js';
import type { SharedMemory } from './memories.js';
import type { OpenedImage } from './open-image.js';

export interface Vbd {
  readonly slot: number;
  readonly vdev: string;
  readonly mode: Mode;
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
  /** as asked for; the image may have been closed since (ram) */
  readonly imagePath: string | null;
  readonly nodeId: number;
  readonly ledgerIndex: number;
  /** held open and claimed for as long as the vbd lives; null where memory holds the bytes */
  readonly image: OpenedImage | null;
  readonly claim: Claim | null;
  readonly memory: SharedMemory | null;
  readonly state: Json | null;
  readonly size: number;
  /** nobody may open it any more: its detach is waiting for the kernel, or has been told yes */
  leaving: boolean;
  /** a detach is under way: a second one has to wait its turn */
  detaching: boolean;
}
