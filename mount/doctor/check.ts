/**
 * A check of `fusetap doctor` and its finding. Each check is a function that changes nothing.
 */

export interface Finding {
  readonly ok: boolean;
  /** the finding, in one clause */
  readonly detail: string;
  /** how to fix it; null if there is nothing to fix */
  readonly hint: string | null;
}

export interface Check {
  readonly name: string;
  /** no image can be attached without it */
  readonly needed: boolean;
  look(): Finding | Promise<Finding>;
}

/** All is well. */
export function fine(detail: string): Finding {
  return { ok: true, detail, hint: null };
}

/** Something is missing. @param hint how to fix it */
export function lacking(detail: string, hint: string | null): Finding {
  return { ok: false, detail, hint };
}
