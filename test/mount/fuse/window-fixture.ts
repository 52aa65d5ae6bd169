/** A WindowServer with a window in the middle of a memfd, used as the loop of thread.ts uses it. */
import { closeSync, fstatSync, ftruncateSync, readSync, writeSync } from 'node:fs';
import type { Window } from '../../../drivers/driver.js';
import { durably } from '../../../drivers/segments/window-sync.js';
import { MappedWindows } from '../../../mount/fuse/event-loop/mapped-windows.js';
import { isOneWay, isWellFormed } from '../../../mount/fuse/protocol/message.js';
import { DEFERRED, NOT_SERVED, WindowServer } from '../../../mount/fuse/thread/serve-window.js';
import { OneWindow, type ServedWindow } from '../../../mount/fuse/thread/served-disk.js';
import { createThreadMemory, ThreadGate } from '../../../mount/fuse/thread/thread-control.js';
import { createTurnMemory, NO_TURNS, TurnWatch, WriteTurns } from '../../../mount/fuse/thread/write-turns.js';
import { createLedger, Ledger } from '../../../mount/ledger/ledger.js';
import { memfdCreate } from '../../../system/libc.js';

export const BEFORE_BYTES = 4096;
export const AFTER_BYTES = 8192;
const AROUND = 0x5a;

export interface WindowFixture {
  readonly server: WindowServer;
  readonly ledger: Ledger;
  readonly window: Window;
  /** how often the server has given its permit away */
  permitsGiven(): number;
  /** Serves a message: the reply's bytes, `handed over` to the main thread, `put off`, or nothing. */
  serve(bytes: Buffer, changes?: Partial<Window>, canReadNoWait?: boolean): Buffer | 'handed over' | 'put off' | null;
  /** the current bytes of the window; @throws Error if the bytes around it or the file's size have changed */
  content(): Buffer;
  close(): void;
}

/** The reply in the buffer of a server. */
export function sent({ request, replyAddress, requestAddress }: WindowServer, length: number): Buffer {
  const { buffer, byteOffset } = request.bytes;
  return Buffer.concat([new Uint8Array(buffer, byteOffset + replyAddress - requestAddress, length)]);
}

/** @param isMapped large writes go through mapped-write.ts */
export function makeWindowFixture(initial: Buffer, isMapped = false): WindowFixture {
  const fd = memfdCreate('image');
  const size = initial.length;
  const total = BEFORE_BYTES + size + AFTER_BYTES;
  ftruncateSync(fd, total);
  writeSync(fd, Buffer.alloc(BEFORE_BYTES, AROUND), 0, BEFORE_BYTES, 0);
  writeSync(fd, initial, 0, size, BEFORE_BYTES);
  writeSync(fd, Buffer.alloc(AFTER_BYTES, AROUND), 0, AFTER_BYTES, BEFORE_BYTES + size);
  const window: Window = { fd, start: BEFORE_BYTES, size, kind: 'memory', readOnly: false, durable: false };
  const windows = new MappedWindows({ takeUse: () => false, mapsFiles: true });
  const mappedAt = isMapped ? windows.map(2, window) : 0;
  const ledger = new Ledger(createLedger());
  const gate = new ThreadGate(createThreadMemory(1), 0);
  let given = 0;
  gate.givePermit = () => {
    given++;
  };
  const memory = createTurnMemory(1);
  const turns = isMapped ? 0 : NO_TURNS;
  if (isMapped) void new TurnWatch(memory).allow(turns);
  const server = new WindowServer(ledger, gate, { turns: new WriteTurns(memory, 0) });
  const { bytes: buffer } = server.request;
  return {
    server,
    ledger,
    window,
    permitsGiven: () => given,
    serve(bytes, changes = {}, canReadNoWait = false) {
      buffer.set(bytes);
      const narrowed = { ...window, ...changes };
      const windows = { window: narrowed, durably: durably(narrowed) };
      const mayGrow = narrowed.kind === 'memory';
      const served: ServedWindow = { ...windows, canReadNoWait, mappedAt, turns, mayGrow };
      if (isWellFormed(server.request, bytes.length)) {
        const length = server.serve(new OneWindow({ ledgerIndex: 0, flushIndex: 0 }, served));
        if (length === DEFERRED) return 'put off';
        return length === NOT_SERVED ? 'handed over' : sent(server, length);
      }
      if (bytes.length < 40 || isOneWay(server.request.opcode)) return null;
      return sent(server, server.answer(-22));
    },
    content() {
      const whole = Buffer.alloc(fstatSync(fd).size);
      readSync(fd, whole, 0, whole.length, 0);
      const around = Buffer.concat([whole.subarray(0, BEFORE_BYTES), whole.subarray(BEFORE_BYTES + size)]);
      if (whole.length !== total || !around.equals(Buffer.alloc(BEFORE_BYTES + AFTER_BYTES, AROUND))) {
        throw new Error('bytes outside of the window have changed');
      }
      return whole.subarray(BEFORE_BYTES, BEFORE_BYTES + size);
    },
    close() {
      windows.unmap(2);
      closeSync(fd);
    },
  };
}
