/**
 * nbd: a disk on an NBD server, such as qemu-nbd or nbdkit. "Disks on a network" in docs/architecture.md has the design.
 */
import { fstatSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { closeAll } from '../close-fd.js';
import type { Driver, Host, Json, Kept } from '../driver.js';
import { FusetapError } from '../errors.js';
import { reasonOf } from '../remote/faults.js';
import { sendsWhole } from './connection.js';
import { nbdDisk } from './disk.js';
import { OtherExport, ProtocolFault, systemCode } from './faults.js';
import { type NbdOptions, parseOptions } from './options.js';
import { EXPORT_FLAG } from './protocol.js';
import { MOST_WHOLE_DATA } from './sender.js';
import { type FixedFacts, type Predecessor, Session } from './session.js';
import { KeptState } from './takeover/kept-state.js';
import { type NbdAddress, printNbdUri } from './uri.js';

const nbd = {
  name: 'nbd',
  roles: {},
  isRemote: true,
  check(options) {
    parseOptions(options);
  },
  async claims(options) {
    const { address } = parseOptions(options);
    const { host, port, socket, exportName } = address;
    // the same server by another path, or with other keys, is the same
    const place = socket === null || socket.startsWith('\0') ? socket : await realpath(socket).catch(() => socket);
    return printNbdUri({ host, port, socket: place, exportName, tls: null });
  },
  async open({ options, readOnly, kept = null, host }) {
    const parsed = parseOptions(options);
    const earlier = kept === null ? null : earlierOf(kept);
    const known = earlier === null ? null : KeptState.adopt(earlier.stateFd);
    const own = known === null ? KeptState.create() : null;
    try {
      const state = known ?? (own as KeptState);
      const session = sessionOf(parsed, { state, host }, earlier && { ...earlier, isKnown: known !== null });
      const facts = earlier?.facts ?? (await begun(session, parsed.address));
      const isWritten = !readOnly;
      if (isWritten && (facts.flags & EXPORT_FLAG.readOnly) !== 0) {
        session.close();
        throw new FusetapError('DENIED', `${printNbdUri(parsed.address)} is read-only`, {
          hint: 'attach it with mode r',
        });
      }
      const { isDurable } = parsed;
      return nbdDisk(
        { session, state, facts, readOnly, isDurable, mostWritten: longestWrite(parsed, facts) },
        async () => {
          session.close();
          if (own !== null) await closeAll([own.fd]);
        },
      );
    } catch (error) {
      if (own !== null) await closeAll([own.fd]);
      throw error;
    }
  },
} satisfies Driver;

function sessionOf(
  { address, timeoutMs, doubtMs }: NbdOptions,
  { state, host }: { readonly state: KeptState; readonly host: Host | undefined },
  predecessor: Predecessor | null,
): Session {
  return new Session({ address, state, host, timeoutMs, doubtMs }, predecessor);
}

/** Short ones are for the flush of an old connection (sender.ts), which a disk without unflushed writes does not need. */
function longestWrite({ address, isDurable }: NbdOptions, { flags, minimumBytes, maximumBytes }: FixedFacts): number {
  const isNeverUnflushed = isDurable && (flags & EXPORT_FLAG.fua) !== 0;
  if (isNeverUnflushed || !sendsWhole(address, { flags })) return maximumBytes;
  const most = Math.min(maximumBytes, MOST_WHOLE_DATA);
  return Math.max(minimumBytes, most - (most % minimumBytes));
}

/** Connects for the first time. @throws FusetapError that names the export */
async function begun(session: Session, address: NbdAddress): Promise<FixedFacts> {
  try {
    return await session.begin();
  } catch (error) {
    session.close();
    throw notConnected(error, printNbdUri(address));
  }
}

const UNREACHABLE = [
  'ECONNREFUSED',
  'ENOENT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ETIMEDOUT',
  'ENOTSOCK',
];

function notConnected(error: unknown, uri: string): FusetapError {
  if (error instanceof FusetapError) {
    const { code, message, hint, errno } = error;
    return new FusetapError(code, `${uri}: ${message}`, { hint, errno, cause: error });
  }
  const code = systemCode(error);
  const text = `${uri}: ${reasonOf(error)}`;
  if (UNREACHABLE.includes(code)) {
    return new FusetapError('NOT_FOUND', text, {
      hint: 'no NBD server listens there: check host, port and socket',
      cause: error,
    });
  }
  if (code === 'EACCES')
    return new FusetapError('DENIED', text, { hint: 'let this user use the socket', cause: error });
  const isOdd = error instanceof ProtocolFault || error instanceof OtherExport;
  return new FusetapError('FAILED', text, {
    hint: isOdd ? 'the NBD server is broken' : 'see the log of the NBD server',
    cause: error,
  });
}

/** What an earlier server has kept: the facts, and the descriptors of its memory and its socket. */
function earlierOf({ facts, fds }: Kept): Omit<Predecessor, 'isKnown'> & { readonly stateFd: number } {
  const [stateFd, socketFd] = fds;
  if (stateFd === undefined || !areFacts(facts))
    throw new FusetapError('FAILED', 'what an earlier server has kept is damaged');
  return { stateFd, socketFd: socketFd !== undefined && isSocket(socketFd) ? socketFd : null, facts };
}

function isSocket(fd: number): boolean {
  try {
    return fstatSync(fd).isSocket();
  } catch {
    return false;
  }
}

function areFacts(value: Json): value is FixedFacts & Json {
  const { size, flags, minimumBytes, maximumBytes } = (value ?? {}) as Partial<FixedFacts>;
  return [size, flags, minimumBytes, maximumBytes].every((each) => Number.isSafeInteger(each));
}

export default nbd;
