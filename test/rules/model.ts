import type { Mode } from '../../mount/images/mode.js';

export interface ModelImage {
  readonly name: string;
  /** what is in the file */
  readonly bytes: Buffer;
  /** what is in memory, while a ram vbd of it is attached (rule 3) */
  memory: Buffer | null;
}

export interface Request {
  readonly driver: 'aio' | 'sync' | 'ram';
  readonly image: ModelImage;
  readonly mode: Mode;
  readonly passthrough: 'on' | 'off';
}

export interface ModelVbd extends Request {
  readonly bus: number;
  /** the one cache (rule 1) */
  readonly bytes: Buffer;
  /** open files of clients */
  opens: number;
  /** cut off by force: what is still open is dead */
  dead: boolean;
}

/** Rule 8's table: which modes in use refuse a new one. */
const REFUSED_BY: Record<Mode, readonly Mode[]> = { r: ['w'], w: ['r', 'w', 'w!'], 'w!': [] };

export class Model {
  readonly images: readonly ModelImage[];
  readonly vbds = new Set<ModelVbd>();

  constructor(images: readonly ModelImage[]) {
    this.images = images;
  }

  /** @returns the vbd, or the code that the attach is refused with */
  attach(bus: number, request: Request): ModelVbd | 'BUSY' | 'UNSUPPORTED' {
    const { driver, image, mode, passthrough } = request;
    // what copies reads only, and only once; who joins a memory does not touch the file
    const claim = driver !== 'ram' ? mode : image.memory === null ? 'r' : 'w!';
    const held = [...this.vbds].filter((vbd) => vbd.image === image && vbd.driver !== 'ram').map((vbd) => vbd.mode);
    if (held.some((other) => REFUSED_BY[claim].includes(other))) return 'BUSY';
    if (driver === 'sync' && passthrough === 'on' && mode !== 'r') return 'UNSUPPORTED';
    if (driver === 'ram') image.memory ??= Buffer.from(image.bytes);
    const bytes = driver === 'ram' ? (image.memory as Buffer) : image.bytes;
    const vbd = { ...request, bus, bytes, opens: 0, dead: false };
    this.vbds.add(vbd);
    return vbd;
  }

  /** Rule 9. */
  detach(vbd: ModelVbd, force: boolean): 'done' | 'BUSY' {
    if (vbd.opens > 0 && !force) return 'BUSY';
    vbd.dead = true;
    this.vbds.delete(vbd);
    const { image } = vbd;
    if (![...this.vbds].some((other) => other.driver === 'ram' && other.image === image)) image.memory = null;
    return 'done';
  }

  /** What opening for reading, or for reading and writing, comes to; `null` where it is opened. */
  open(vbd: ModelVbd, writes: boolean): string | null {
    return writes && vbd.mode === 'r' ? 'EROFS' : null;
  }

  read(vbd: ModelVbd, at: number, length: number): Buffer | string {
    return vbd.dead ? 'EIO' : vbd.bytes.subarray(at, at + length);
  }

  /** Rule 7: a write is shortened at the end, and refused there. */
  write(vbd: ModelVbd, at: number, data: Buffer): number | string {
    if (vbd.dead) return 'EIO';
    if (at >= vbd.bytes.length) return vbd.passthrough === 'on' ? 'EPERM' : 'ENOSPC';
    return data.copy(vbd.bytes, at);
  }

  zero(vbd: ModelVbd, at: number, length: number): number | string {
    if (vbd.dead) return 'EIO';
    vbd.bytes.fill(0, Math.min(at, vbd.bytes.length), Math.min(at + length, vbd.bytes.length));
    return 0;
  }

  flush(vbd: ModelVbd): string | null {
    return vbd.dead ? 'EIO' : null;
  }
}
