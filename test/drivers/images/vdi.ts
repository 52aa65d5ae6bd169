/** Writes VDI headers and maps by the description of VirtualBox's format, for tests. */

export interface VdiFields {
  readonly size: number | bigint;
  readonly type?: number;
  readonly version?: number;
  readonly headerBytes?: number;
  readonly blockBytes?: number;
  /** of the header; default: as the size needs */
  readonly blocks?: number;
  readonly mapStart?: number;
  readonly dataStart?: number;
  readonly sectorBytes?: number;
  readonly extraBytes?: number;
  readonly parent?: number;
  /** entries of the map; default: 0, 1, 2 … */
  readonly map?: readonly number[];
}

/** The header and the map; the data follows at `dataStart`. */
export function vdiHead(fields: VdiFields): { head: Buffer; dataStart: number } {
  const { size, blockBytes = 1 << 20, mapStart = 512 } = fields;
  const blocks = fields.blocks ?? Math.min(0xffffffff, Math.ceil(Number(size) / blockBytes));
  const map = fields.map ?? Array.from({ length: Math.min(blocks, 1 << 24) }, (_, i) => i);
  const dataStart = fields.dataStart ?? Math.ceil((mapStart + 4 * map.length) / 4096) * 4096;
  const head = Buffer.alloc(Math.max(512, Math.min(dataStart, 1 << 24), mapStart + 4 * map.length));
  head.write('<<< a test >>>\n', 0, 'latin1');
  const words: [at: number, value: number][] = [
    [64, 0xbeda107f],
    [68, fields.version ?? 0x10001],
    [72, fields.headerBytes ?? 0x180],
    [76, fields.type ?? 2],
    [340, mapStart],
    [344, dataStart],
    [360, fields.sectorBytes ?? 512],
    [376, blockBytes],
    [380, fields.extraBytes ?? 0],
    [384, blocks],
    [388, blocks],
    [392, 0x11111111],
    [440, fields.parent ?? 0],
  ];
  for (const [at, value] of words) head.writeUInt32LE(value, at);
  head.writeBigUInt64LE(BigInt(size), 368);
  for (const [i, place] of map.entries()) head.writeUInt32LE(place, mapStart + 4 * i);
  return { head, dataStart };
}
