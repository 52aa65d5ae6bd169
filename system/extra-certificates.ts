/**
 * The authorities of NODE_EXTRA_CA_CERTS, which users and administrators set for all programs that run on Node.
 *
 * Node 20 reads and parses that file at each start, also if no connection is ever made: with the authorities of a usual system
 * that takes twice as long as the rest of the start. Later versions wait for the first connection. So keepers and servers on
 * Node 20 start without the variable, and add the authorities to the connections themselves.
 */
import { readFileSync } from 'node:fs';
import type { SecureContext } from 'node:tls';
import { builtin } from './builtin.js';

const OF_NODE = 'NODE_EXTRA_CA_CERTS';
const OURS = 'FUSETAP_EXTRA_CA_CERTS';
/** the first version that is known to wait */
const FIRST_LAZY = 22;

/** a context of OpenSSL, of which Node's types do not know this method */
interface Extendable {
  addCACert(pem: string): void;
}

/** The environment for a program of ours that runs on this version of Node. */
export function withoutExtraCertificates(
  { [OF_NODE]: path, ...env }: NodeJS.ProcessEnv,
  version = process.versions.node,
): NodeJS.ProcessEnv {
  if (path === undefined || path === '') return env;
  const isLazy = Number.parseInt(version, 10) >= FIRST_LAZY;
  return { ...env, [isLazy ? OF_NODE : OURS]: path };
}

let isDone = false;

/** To be called before code that makes encrypted connections is used: from then on they trust the authorities. */
export function trustExtraCertificates(): void {
  const { [OURS]: path } = process.env;
  if (isDone || path === undefined) return;
  isDone = true;
  const certificates = readCertificates(path);
  const { tls } = builtin;
  const { createSecureContext } = tls;
  // Node's own code calls it by this name, too
  tls.createSecureContext = (options) => {
    const made = createSecureContext(options);
    if (options?.ca === undefined) add(made, certificates);
    return made;
  };
}

/** As Node does it: a file that cannot be read is a warning. */
function readCertificates(path: string): string[] {
  try {
    return readFileSync(path, 'latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  } catch (error) {
    console.error(`the authorities of ${OF_NODE} are not used: ${(error as Error).message}`);
    return [];
  }
}

function add({ context }: SecureContext, certificates: readonly string[]): void {
  for (const certificate of certificates) {
    try {
      (context as Extendable).addCACert(certificate);
    } catch {
      // one that OpenSSL does not understand
    }
  }
}
