/** The memory of requests that the event loop serves. */
import { MemoryPool } from '../../../system/memory-pool.js';
import { Request } from '../protocol/message.js';
import { type RequestMemory, RequestPlaces } from '../thread/request-memory.js';

/** Takes the memory of a request back when the request has ended. */
export interface RequestOwner {
  give(request: Request): void;
  /** somebody may still use it, for ever */
  lose(request: Request): void;
}

/** Memory that requests use one after the other: 128 B, 256 B, … 512 KiB, 1 MiB. */
export class RequestPool extends MemoryPool<Request> implements RequestOwner {
  constructor() {
    super({
      ...{ smallestBytes: 128, keptBytes: 8 << 20 },
      make: (bytes) => new Request(Buffer.allocUnsafeSlow(bytes)),
      bytesOf: ({ bytes }) => bytes.byteLength,
    });
  }

  lose(): void {}
}

/** Requests that threads have handed on in memory that all share. */
export class SharedRequests implements RequestOwner {
  readonly #places: RequestPlaces;
  readonly #numberOf = new Map<Request, number>();

  constructor(memory: RequestMemory) {
    this.#places = new RequestPlaces(memory);
  }

  /** The request at a place, until it is given back. */
  at(number: number): Request {
    const { request } = this.#places.at(number);
    this.#numberOf.set(request, number);
    return request;
  }

  lose(): void {
    this.#places.lose();
  }

  give(request: Request): void {
    this.#places.give(this.#numberOf.get(request) as number);
  }
}
