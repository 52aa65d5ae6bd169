/** The errors of the driver: what a Ceph cluster answers. */
import { constants } from 'node:os';
import { errnoName } from '../../system/libc.js';
import { LibraryMissing } from '../../system/librbd.js';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { inputOutputError, reasonOf } from '../remote/faults.js';
import { ClusterError } from './cluster-calls.js';
import { imageName, type RbdAddress } from './uri.js';

const { errno: E } = constants;

/** Linux has this number; Node does not name it */
export const ESHUTDOWN = 108;

/** The image is not what it was when it was attached, or another client has it: no other attempt changes that. */
export class Taken extends Error {
  override readonly name = 'Taken';
}

export function libraryMissing(error: unknown): FusetapError {
  if (!(error instanceof LibraryMissing)) throw error;
  const { lacks } = error;
  if (lacks === null) {
    return new FusetapError('UNSUPPORTED', `driver rbd: librbd cannot be loaded: ${error.message}`, {
      hint: 'install it: apt install librbd1',
      cause: error,
    });
  }
  return new FusetapError('UNSUPPORTED', `driver rbd: the installed librbd is too old: it has no ${lacks}`, {
    hint: 'install the libraries of Ceph 15 or later',
    cause: error,
  });
}

/** Why the disk cannot be attached. */
export function notAttached(error: unknown, address: RbdAddress): FusetapError {
  if (error instanceof FusetapError) return error;
  const { id, conf, pool, snapshot } = address;
  const image = quoted(imageName(address));
  if (!(error instanceof ClusterError)) {
    return new FusetapError('FAILED', `${image}: ${reasonOf(error)}`, { cause: error });
  }
  const { step, errno } = error;
  const isAbsent = errno === E.ENOENT;
  const make = (code: 'NOT_FOUND' | 'DENIED' | 'FAILED' | 'UNSUPPORTED', why: string, hint: string): FusetapError =>
    new FusetapError(code, `${image}: ${why}`, { hint, cause: error });
  if (errno === E.EACCES || errno === E.EPERM) {
    const why = `Ceph does not let client.${id} ${step === 'connect' ? 'in' : 'use it'}`;
    return make('DENIED', why, 'check id, keyring, and the rights of the user (ceph auth get)');
  }
  if (step === 'conf') {
    const file = conf === null ? 'no ceph.conf was found' : `${quoted(conf)} cannot be read`;
    return make('NOT_FOUND', `${file} (${errnoName(errno)})`, 'name one: --option conf=/PATH');
  }
  if (step === 'connect' && isAbsent) {
    return make('NOT_FOUND', `there is no key of client.${id}, or no monitor is named`, 'check keyring, id and conf');
  }
  if (step === 'connect') {
    return make(
      'NOT_FOUND',
      `no monitor of the cluster answers (${errnoName(errno)})`,
      'check mon_host in the ceph.conf',
    );
  }
  if (step === 'pool' && isAbsent)
    return make('NOT_FOUND', `there is no pool ${quoted(pool)}`, 'ceph osd pool ls lists them');
  if (step === 'image' && isAbsent)
    return make('NOT_FOUND', 'there is no such image', `rbd ls ${quoted(pool)} lists them`);
  if (step === 'snapshot' && isAbsent) {
    return make('NOT_FOUND', `there is no snapshot ${quoted(snapshot ?? '')}`, 'rbd snap ls IMAGE lists them');
  }
  if (step === 'image' && errno === E.ENOSYS) {
    return make('UNSUPPORTED', 'it has features that this librbd does not know', 'install a newer librbd');
  }
  return make('FAILED', `${step} failed: ${errnoName(errno)}`, 'see ceph -s');
}

/** What is said of an attempt that failed, while requests wait for the next one. */
export function shortReason(error: unknown): string {
  if (!(error instanceof ClusterError)) return reasonOf(error);
  const { step, errno } = error;
  if (step === 'connect') return `no monitor of the Ceph cluster answers (${errnoName(errno)})`;
  if (step === 'fence' && (errno === E.EACCES || errno === E.EPERM)) {
    return 'Ceph does not let this user fence the client before it: its rights for monitors must be profile rbd';
  }
  return `Ceph answers ${errnoName(errno)} (${step})`;
}

/** The error of a request. @param result negative */
export function requestError(result: number): FusetapError {
  const errno = -result;
  if (errno === E.ENOSPC || errno === E.EDQUOT) {
    return new FusetapError('NO_SPACE', 'the pool of the image is full', { errno: E.ENOSPC });
  }
  if (errno === E.EINVAL) return hasShrunk();
  return inputOutputError(`Ceph answers ${errnoName(errno)}`);
}

export function hasShrunk(): FusetapError {
  return inputOutputError('the image has shrunk since it was attached');
}
