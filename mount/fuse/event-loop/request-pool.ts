/** Memory that requests on the event loop use one after the other: 128 B, 256 B, … 512 KiB, 1 MiB. */
import { MemoryPool } from '../../../system/memory-pool.js';
import { Request } from '../protocol/message.js';

export class RequestPool extends MemoryPool<Request> {
  constructor() {
    super({
      ...{ smallestBytes: 128, keptBytes: 8 << 20 },
      make: (bytes) => new Request(Buffer.allocUnsafeSlow(bytes)),
      bytesOf: ({ bytes }) => bytes.byteLength,
    });
  }
}
