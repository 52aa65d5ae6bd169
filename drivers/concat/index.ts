/**
 * concat: disks one after the other, as the user names them: `part0`, `part1` … If all of them lie in files, threads serve
 * the whole.
 */
import type { Driver } from '../driver.js';
import { FusetapError } from '../errors.js';
import { numberedDisks } from '../image.js';
import { takeOptions } from '../options.js';
import { joinDisks } from '../segments/join-disks.js';

const concat = {
  name: 'concat',
  roles: { part: { takes: 'disk', access: 'as-parent', many: true } },
  rawImage: true,
  check: (options) => takeOptions('concat', options, []),
  async open({ disks }) {
    const parts = numberedDisks({ disks }, 'part');
    const gap = parts.findIndex(({ number }, at) => number !== at);
    if (parts.length === 0 || gap >= 0) {
      throw new FusetapError('USAGE', `concat: part${Math.max(0, gap)} is missing`, {
        hint: 'number the parts from part0 on, without gaps',
      });
    }
    const size = parts.reduce((sum, { disk }) => sum + disk.size, 0);
    if (!Number.isSafeInteger(size)) throw new FusetapError('USAGE', `concat: the parts have ${size} bytes, too many`);
    return joinDisks(parts.map(({ disk }) => ({ disk, start: 0, size: disk.size })));
  },
} satisfies Driver;

export default concat;
