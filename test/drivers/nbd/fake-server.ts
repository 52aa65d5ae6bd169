/**
 * An NBD server in this process that does exactly what a test wants, also what no server should do. It holds its bytes in
 * memory.
 */
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { Test } from 'tap';

export const NEWSTYLE = 0x4948_4156_454f_5054n;
const REPLY_MAGIC = 0x0003_e889_0455_65a9n;
const ACK = 1;
const UNSUPPORTED = 2 ** 31 + 1;

export interface FakeRequest {
  readonly flags: number;
  readonly command: number;
  readonly cookie: Buffer;
  readonly offset: number;
  readonly length: number;
  readonly data: Buffer;
  /** on which connection it came: the first is 1 */
  readonly connection: number;
}

export interface FakeOptions {
  readonly bytes: Buffer;
  /** see EXPORT_FLAG; default: flags, flush, FUA, zeroes */
  readonly flags?: number;
  readonly isStructured?: boolean;
  /** ends each connection after so many bytes of the server */
  readonly cutAfter?: number;
  /** the bytes to send for these bytes of the handshake or a reply, by their number on the connection */
  readonly change?: (bytes: Buffer, number: number) => Buffer;
  /** it never closes its side of a connection; counts only at the start */
  readonly isHalfOpen?: boolean;
  /** what is sent for a request; undefined: the right answer */
  readonly answer?: (request: FakeRequest, send: (bytes: Buffer) => void) => boolean;
}

const READ = 0;
const WRITE = 1;
const DISCONNECT = 2;
const ZEROES = 6;

export class FakeServer {
  options: FakeOptions;
  readonly requests: FakeRequest[] = [];
  connections = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #place: string | number;

  private constructor(place: string | number, options: FakeOptions) {
    this.#place = place;
    this.options = options;
    this.#server = createServer({ allowHalfOpen: options.isHalfOpen ?? false }, (socket) => {
      this.#sockets.add(socket);
      this.connections += 1;
      socket.on('error', () => {});
      new FakeConnection(this, socket);
    });
  }

  /** @param place the path of a socket, or a port of this machine; 0: any */
  static async start(t: Test, place: string | number, options: FakeOptions): Promise<FakeServer> {
    const fake = new FakeServer(place, options);
    await fake.listen();
    t.teardown(() => fake.stop());
    return fake;
  }

  async listen(): Promise<void> {
    const place = this.#place;
    await new Promise<void>((resolve) => {
      if (typeof place === 'string') this.#server.listen(place, resolve);
      else this.#server.listen(place, '127.0.0.1', resolve);
    });
    if (typeof place === 'number') this.#place = this.port;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Reads nothing any more, or reads on. */
  pause(isPaused: boolean): void {
    for (const socket of this.#sockets) {
      if (isPaused) socket.pause();
      else socket.resume();
    }
  }

  /** Ends all connections, and takes no more. */
  stop(): void {
    this.dropAll();
    this.#server.close();
  }

  dropAll(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }
}

class FakeConnection {
  readonly #fake: FakeServer;
  readonly #socket: Socket;
  readonly #which: number;
  #left: number;
  #number = 0;
  #input = Buffer.alloc(0);
  #isNegotiating = true;
  #hasFlags = false;

  constructor(fake: FakeServer, socket: Socket) {
    this.#fake = fake;
    this.#socket = socket;
    this.#which = fake.connections;
    this.#left = fake.options.cutAfter ?? Number.POSITIVE_INFINITY;
    socket.on('data', (bytes) => {
      this.#input = Buffer.concat([this.#input, bytes]);
      while (this.#step());
    });
    const greeting = Buffer.alloc(18);
    greeting.write('NBDMAGIC');
    greeting.writeBigUInt64BE(NEWSTYLE, 8);
    greeting.writeUInt16BE(3, 16);
    this.#send(greeting);
  }

  #send(bytes: Buffer): void {
    const { change } = this.#fake.options;
    const sent = change === undefined ? bytes : change(bytes, this.#number++);
    const part = sent.subarray(0, this.#left);
    this.#left -= part.length;
    this.#socket.write(part);
    if (this.#left <= 0) this.#socket.end();
  }

  /** @returns whether there was enough input for a step */
  #step(): boolean {
    if (!this.#hasFlags) {
      if (this.#input.length < 4) return false;
      this.#input = this.#input.subarray(4);
      this.#hasFlags = true;
      return true;
    }
    return this.#isNegotiating ? this.#option() : this.#request();
  }

  #option(): boolean {
    if (this.#input.length < 16) return false;
    const [option, length] = [this.#input.readUInt32BE(8), this.#input.readUInt32BE(12)];
    if (this.#input.length < 16 + length) return false;
    this.#input = this.#input.subarray(16 + length);
    const { bytes, flags = 0x4d, isStructured = false } = this.#fake.options;
    if (option === 7) {
      const info = Buffer.alloc(12);
      info.writeBigUInt64BE(BigInt(bytes.length), 2);
      info.writeUInt16BE(flags, 10);
      this.#reply(option, 3, info);
      this.#reply(option, ACK, Buffer.alloc(0));
      this.#isNegotiating = false;
    } else if (option === 8 && isStructured) this.#reply(option, ACK, Buffer.alloc(0));
    else if (option === 10 && isStructured) {
      const context = Buffer.concat([Buffer.from([0, 0, 0, 7]), Buffer.from('base:allocation')]);
      this.#reply(option, 4, context);
      this.#reply(option, ACK, Buffer.alloc(0));
    } else this.#reply(option, UNSUPPORTED, Buffer.alloc(0));
    return true;
  }

  #reply(option: number, type: number, data: Buffer): void {
    const header = Buffer.alloc(20);
    header.writeBigUInt64BE(REPLY_MAGIC, 0);
    header.writeUInt32BE(option, 8);
    header.writeUInt32BE(type, 12);
    header.writeUInt32BE(data.length, 16);
    this.#send(Buffer.concat([header, data]));
  }

  #request(): boolean {
    const input = this.#input;
    if (input.length < 28) return false;
    const command = input.readUInt16BE(6);
    const length = input.readUInt32BE(24);
    const whole = 28 + (command === WRITE ? length : 0);
    if (input.length < whole) return false;
    this.#input = input.subarray(whole);
    const request: FakeRequest = {
      ...{ flags: input.readUInt16BE(4), command, cookie: Buffer.from(input.subarray(8, 16)) },
      ...{ offset: Number(input.readBigUInt64BE(16)), length, data: Buffer.from(input.subarray(28, whole)) },
      connection: this.#which,
    };
    this.#fake.requests.push(request);
    if (command === DISCONNECT) {
      this.#socket.end();
      return false;
    }
    const { answer } = this.#fake.options;
    if (!answer?.(request, (bytes) => this.#send(bytes))) this.#serve(request);
    return true;
  }

  #serve({ command, cookie, offset, length, data }: FakeRequest): void {
    const { bytes, isStructured = false } = this.#fake.options;
    if (command === WRITE) data.copy(bytes, offset);
    if (command === ZEROES) bytes.fill(0, offset, offset + length);
    const read = bytes.subarray(offset, offset + length);
    if (command === READ && isStructured) {
      const place = Buffer.alloc(8);
      place.writeBigUInt64BE(BigInt(offset));
      return this.#send(chunk(cookie, 1, Buffer.concat([place, read])));
    }
    if (command === 7) {
      const status = Buffer.alloc(12);
      status.writeUInt32BE(7, 0);
      status.writeUInt32BE(length, 4);
      return this.#send(chunk(cookie, 5, status));
    }
    this.#send(Buffer.concat([simple(cookie, 0), command === READ ? read : Buffer.alloc(0)]));
  }
}

/** A simple reply. */
export function simple(cookie: Buffer, error: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32BE(0x6744_6698, 0);
  header.writeUInt32BE(error, 4);
  cookie.copy(header, 8);
  return header;
}

/** A chunk of a structured reply; the last one unless said otherwise. */
export function chunk(
  cookie: Buffer,
  type: number,
  payload: Buffer,
  { isLast = true, length = payload.length } = {},
): Buffer {
  const header = Buffer.alloc(20);
  header.writeUInt32BE(0x668e_33ef, 0);
  header.writeUInt16BE(isLast ? 1 : 0, 4);
  header.writeUInt16BE(type, 6);
  cookie.copy(header, 8);
  header.writeUInt32BE(length, 16);
  return Buffer.concat([header, payload]);
}
