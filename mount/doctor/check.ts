/**
 * What a check of `fusetap doctor` finds. Each check is one function that changes nothing.
 */

export interface Finding {
  readonly ok: boolean;
  /** what was found, one clause */
  readonly detail: string;
  /** how to mend it; null if there is nothing to mend */
  readonly hint: string | null;
}

export interface Check {
  readonly name: string;
  /** without it no image can be attached at all */
  readonly needed: boolean;
  look(): Finding | Promise<Finding>;
}

/** All is well. */
export function fine(detail: string): Finding {
  return { ok: true, detail, hint: null };
}

/** Something is missing. @param hint how to mend it */
export function lacking(detail: string, hint: string | null): Finding {
  return { ok: false, detail, hint };
}
