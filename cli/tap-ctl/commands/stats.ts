/** `tap-ctl stats`: prints the counters of requests as one line of JSON with tapdisk's keys. */
import { factsOf } from '../../../drivers/names.js';
import type { VbdInfo, VbdStats } from '../../../mount/control/interface.js';
import { statsOfMinor } from '../../../mount/tap/index.js';
import { print } from '../../output.js';
import { NAME_LETTERS, parseName, type TapCommand } from '../command.js';

export const command: TapCommand = {
  usage: 'stats <-p pid> <-m minor>',
  summary: 'Prints the counters of requests as one line of JSON.',
  letters: NAME_LETTERS,
  async run(given) {
    const { vbd, stats } = await statsOfMinor(parseName(given));
    print(spaced(describe(vbd, stats)));
  },
};

/** for a driver that tapdisk did not have */
const NO_TYPE = -1;
/** the only driver that reported its queue to tapdisk */
const QUEUED_TYPE = 0;
const SECTOR_BYTES = 512;
/** the length of tapdisk's queue */
const MAX_REQUESTS = 352;

function describe({ driver, image }: VbdInfo, { read, write }: VbdStats): unknown {
  const path = image ?? '';
  const sectors = [Math.ceil(read.bytes / SECTOR_BYTES), Math.ceil(write.bytes / SECTOR_BYTES)];
  const type = factsOf(driver)?.tapdiskType ?? NO_TYPE;
  const status = type === QUEUED_TYPE ? { reqs: { max: MAX_REQUESTS, pending: 0 } } : null;
  return {
    name: `${driver}:${path}`,
    secs: sectors,
    images: [
      {
        name: path,
        hits: sectors,
        fail: [read.errors, write.errors],
        driver: { type, name: driver, status },
      },
    ],
    // tapdisk's name for it, which scripts look for
    FIXME_enospc_redirect_count: 0,
    nbd_mirror_failed: 0,
    reqs_outstanding: 0,
    read_caching: 'false',
  };
}

/** JSON on one line, with spaces in the same places as in tapdisk. */
function spaced(value: unknown): string {
  if (Array.isArray(value)) return `[ ${value.map(spaced).join(', ')} ]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const pairs = Object.entries(value).map(([key, item]) => `${JSON.stringify(key)}: ${spaced(item)}`);
  return `{ ${pairs.join(', ')} }`;
}
