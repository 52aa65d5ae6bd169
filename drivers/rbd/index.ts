/** rbd: an image in a Ceph cluster, by librbd. "Images in a Ceph cluster" in docs/architecture.md has the design. */
import { realpath } from 'node:fs/promises';
import { type Librbd, loadLibrbd } from '../../system/librbd.js';
import { within } from '../../system/within.js';
import { closeAll } from '../close-fd.js';
import type { Driver } from '../driver.js';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { readNamedFile } from '../remote/faults.js';
import { rbdDisk } from './disk.js';
import { libraryMissing, notAttached } from './faults.js';
import { type DiskFacts, earlierOf, KeptState } from './kept-state.js';
import { parseOptions } from './options.js';
import { Session } from './session.js';
import { imageName, printRbdUri, type RbdAddress } from './uri.js';

/** a monitor that does not answer is known after 10 s; an OSD is not */
const ATTACH_LIMIT_MS = 20_000;
/** where Ceph looks first */
const DEFAULT_CONF = '/etc/ceph/ceph.conf';

const rbd = {
  name: 'rbd',
  roles: {},
  isRemote: true,
  check(options) {
    parseOptions(options);
  },
  async claims(options) {
    const address = parseOptions(options);
    const conf = address.conf ?? (address.monitors === null ? DEFAULT_CONF : null);
    // the same image by another user, or by another path of the ceph.conf, is the same
    const place = conf === null ? null : await realpath(conf).catch(() => conf);
    return printRbdUri({ ...address, id: 'admin', keyring: null, conf: place });
  },
  async open({ options, readOnly, isShared = false, kept = null, host }) {
    const address = parseOptions(options);
    const library = load();
    if (!readOnly && address.snapshot !== null) {
      throw new FusetapError('DENIED', `${quoted(imageName(address))} is a snapshot, which cannot be written`, {
        hint: 'attach it with mode r, or make a clone of it: rbd clone',
      });
    }
    const earlier = kept === null ? null : earlierOf(kept);
    const state = earlier === null ? KeptState.create() : KeptState.adopt(earlier.fd);
    const closeOwn = async (): Promise<void> => {
      if (earlier === null) await closeAll([state.fd]);
    };
    const session = new Session({ library, address, state, host, readOnly, isShared }, earlier?.facts ?? null);
    try {
      const facts = earlier?.facts ?? (await begun(session, address));
      return rbdDisk({ session, facts, readOnly }, () => session.close(closeOwn));
    } catch (error) {
      await session.close(closeOwn);
      throw notAttached(error, address);
    }
  },
} satisfies Driver;

/** @throws FusetapError UNSUPPORTED */
function load(): Librbd {
  try {
    return loadLibrbd();
  } catch (error) {
    throw libraryMissing(error);
  }
}

/** Connects for the first time. @throws ClusterError, FusetapError; the session must be closed then */
async function begun(session: Session, address: RbdAddress): Promise<DiskFacts> {
  // librados does not say which of them it cannot read
  for (const path of [address.conf, address.keyring]) if (path !== null) await readNamedFile(path);
  const facts = await within(session.begin(), ATTACH_LIMIT_MS, null);
  if (facts === null) {
    session.giveUp();
    throw new FusetapError('FAILED', `the Ceph cluster has not answered for ${ATTACH_LIMIT_MS / 1000} s`, {
      hint: 'look at ceph -s: an OSD may be down',
    });
  }
  if (facts.size > 0 && Number.isSafeInteger(facts.size)) return facts;
  throw new FusetapError('USAGE', `${quoted(imageName(address))} has ${facts.size} bytes`, {
    hint: 'a disk needs at least one: rbd resize',
  });
}

export default rbd;
