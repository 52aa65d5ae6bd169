/** A client that says what a test wants, byte for byte, to an exporter of a file. */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Test } from 'tap';
import { GREETING, OPTION, type RequestHeader, writeRequest } from '../../../drivers/nbd/protocol.js';
import { ExportedFile } from '../../../mount/export/exported-file.js';
import { ExportServer } from '../../../mount/export/server.js';
import type { TlsFiles } from '../../../mount/export/tls.js';
import { readTlsFiles } from '../../../mount/export/tls.js';

export const SIZE = 1 << 20;

export interface Exported {
  /** of the file */
  readonly path: string;
  readonly socket: string;
  readonly file: ExportedFile;
  readonly server: ExportServer;
}

export interface ExportWish {
  readonly readOnly?: boolean;
  readonly tls?: TlsFiles;
}

/** A directory for sockets, whose paths must be short. */
export function shortDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'export-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** An exporter of a file of SIZE bytes in this process. Each byte of the file is the number of its KiB. */
export async function exportFile(t: Test, { readOnly = false, tls }: ExportWish = {}): Promise<Exported> {
  const directory = shortDirectory(t);
  const path = join(directory, 'disk.img');
  const fd = openSync(path, 'w');
  for (let kib = 0; kib < SIZE >> 10; kib++) writeSync(fd, Buffer.alloc(1 << 10, kib));
  closeSync(fd);
  const file = ExportedFile.open({ path, readOnly, isMemory: false, isQueued: false });
  const socket = join(directory, 's');
  const server = new ExportServer(
    { socket },
    { file, name: 'disk', description: 'a disk', tls: tls === undefined ? null : () => readTlsFiles(tls) },
  );
  await server.listen();
  t.teardown(async () => {
    await server.close();
    await file.close();
  });
  return { path, socket, file, server };
}

export class RawClient {
  readonly socket: Socket;
  #got: Buffer = Buffer.alloc(0);
  #isOver = false;
  #wake: () => void = () => {};

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (bytes: Buffer) => {
      this.#got = Buffer.concat([this.#got, bytes]);
      this.#wake();
    });
    const over = (): void => {
      this.#isOver = true;
      this.#wake();
    };
    socket.on('error', over);
    socket.on('close', over);
    socket.on('end', over);
  }

  static async connect(t: Test, path: string): Promise<RawClient> {
    const socket = connect({ path });
    t.teardown(() => socket.destroy());
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', reject);
    });
    return new RawClient(socket);
  }

  /** The next bytes; fewer if the server has closed the connection. */
  async take(length: number): Promise<Buffer> {
    while (this.#got.byteLength < length && !this.#isOver) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const taken = this.#got.subarray(0, length);
    this.#got = this.#got.subarray(taken.byteLength);
    return taken;
  }

  /** Resolves when the server has closed the connection. @returns what came before that */
  async untilClosed(): Promise<Buffer> {
    return await this.take(Number.MAX_SAFE_INTEGER);
  }

  send(...parts: readonly (Uint8Array | string)[]): void {
    this.socket.write(Buffer.concat(parts.map((part) => Buffer.from(part as Uint8Array))));
  }

  async greet(flags = 3): Promise<void> {
    await this.take(18);
    this.send(uint32(flags));
  }

  option(number: number, data: Buffer = Buffer.alloc(0)): void {
    this.send(optionBytes(number, data));
  }

  /** The next reply to an option. */
  async reply(): Promise<{ option: number; type: number; data: Buffer }> {
    const header = await this.take(20);
    return {
      option: header.readUInt32BE(8),
      type: header.readUInt32BE(12),
      data: await this.take(header.readUInt32BE(16)),
    };
  }

  /** Negotiates simple replies of the export. */
  async go(): Promise<void> {
    await this.greet();
    this.option(OPTION.go, goData(''));
    for (let type = 0; type !== 1; type = (await this.reply()).type);
  }

  request(request: Partial<RequestHeader> & Pick<RequestHeader, 'command'>, data: Buffer = Buffer.alloc(0)): void {
    this.send(requestBytes(request), data);
  }

  /** The error of the next simple reply, and its cookie. */
  async simple(): Promise<{ error: number; low: number }> {
    const reply = await this.take(16);
    return { error: reply.readUInt32BE(4), low: reply.readUInt32BE(12) };
  }
}

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

export function optionBytes(number: number, data: Buffer = Buffer.alloc(0)): Buffer {
  const magic = Buffer.alloc(8);
  magic.writeBigUInt64BE(GREETING.newstyle);
  return Buffer.concat([magic, uint32(number), uint32(data.byteLength), data]);
}

/** The data of GO and INFO, with requests for information. */
export function goData(name: string, ...infos: number[]): Buffer {
  const rest = Buffer.alloc(2 + 2 * infos.length);
  rest.writeUInt16BE(infos.length, 0);
  for (const [i, info] of infos.entries()) rest.writeUInt16BE(info, 2 + 2 * i);
  return Buffer.concat([uint32(Buffer.byteLength(name)), Buffer.from(name), rest]);
}

export function requestBytes(request: Partial<RequestHeader> & Pick<RequestHeader, 'command'>): Buffer {
  const header = Buffer.alloc(28);
  writeRequest(header, 0, { flags: 0, cookie: { high: 7, low: 1 }, offset: 0, length: 0, ...request });
  return header;
}
