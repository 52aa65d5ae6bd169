/**
 * Which vbds have changed since somebody asked. Most vbds of a large bus are idle, and who asks every second need not be
 * told of them each time.
 *
 *      answer 1   mark M1, all vbds
 *      since M1   mark M2, the vbds that were counted or changed after M1, and the ids of all
 *
 * A mark is valid for the process that gave it. To any other mark the answer is all vbds.
 */
import { builtin } from '../../system/builtin.js';
import type { BusCounters, VbdCounters } from '../control/interface.js';

interface Known {
  readonly vbd: VbdCounters;
  /** the number of the answer that told it first */
  readonly changed: number;
}

export class Changes {
  readonly #own = builtin.crypto.randomUUID();
  #number = 0;
  #known = new Map<number, Known>();

  /** Notes all vbds as they are now. @returns what the answer to a question with that mark says of them */
  since(mark: string | undefined, vbds: readonly VbdCounters[]): Pick<BusCounters, 'mark' | 'ids' | 'vbds'> {
    this.#number += 1;
    const known = new Map<number, Known>();
    for (const vbd of vbds) {
      const before = this.#known.get(vbd.id);
      const isKnown = before !== undefined && isSame(before.vbd, vbd);
      known.set(vbd.id, isKnown ? before : { vbd, changed: this.#number });
    }
    this.#known = known;
    const after = this.#numberOf(mark);
    const own = { mark: `${this.#own}.${this.#number}` };
    if (after === null) return { ...own, vbds: [...vbds] };
    const changed = vbds.filter(({ id }) => (known.get(id)?.changed ?? 0) > after);
    return { ...own, ids: vbds.map(({ id }) => id), vbds: changed };
  }

  #numberOf(mark: string | undefined): number | null {
    const [own, number = ''] = mark?.split('.') ?? [];
    return own === this.#own && /^\d{1,15}$/.test(number) ? Number(number) : null;
  }
}

/** Counters of which nothing was counted are the same object: see CountersReader. */
function isSame(one: VbdCounters, other: VbdCounters): boolean {
  for (const key in one) if (one[key as keyof VbdCounters] !== other[key as keyof VbdCounters]) return false;
  return true;
}
