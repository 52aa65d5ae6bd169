/**
 * Detaching several things one after another, and telling of it: an error does not hold up the next one, and the first
 * decides the exit status.
 */
import { type ErrorDetails, FusetapError, type PlainError } from '../drivers/errors.js';
import { describeHolders } from '../mount/client/index.js';
import type { DetachedVbd, DetachResult } from '../mount/control/interface.js';
import type { SharedOptions } from './options.js';
import { jsonError, printError, printJson, printNote } from './output.js';

/**
 * Lets each item go. With `--json` prints what went as an array, with `error` where a flush failed; where something
 * could not go, `{"error": the first, "detached": what went}`.
 */
export async function depart<Item>(
  items: readonly Item[],
  options: SharedOptions,
  leave: (item: Item) => Promise<DetachResult>,
): Promise<void> {
  const gone: DetachedVbd[] = [];
  const errors: unknown[] = [];
  const statuses: number[] = [];
  const complain = (error: unknown): void => void statuses.push(printError(error, options.debug));
  for (const item of items) {
    try {
      const { vbds } = await leave(item);
      gone.push(...vbds);
      for (const vbd of vbds) sayGone(vbd, options, complain);
    } catch (error) {
      errors.push(error);
      complain(error);
    }
  }
  if (options.json)
    printJson(errors.length > 0 ? { error: jsonError(errors[0]), detached: jsonOf(gone) } : jsonOf(gone));
  if (statuses[0] !== undefined) process.exitCode = statuses[0];
}

function sayGone(vbd: DetachedVbd, options: SharedOptions, complain: (error: unknown) => void): void {
  if (vbd.changedOutside && !options.quiet) {
    printNote(`${vbd.image} was changed by somebody else while it was attached as ${vbd.vdev} of bus ${vbd.bus}`);
  }
  if (vbd.cutOff && !options.quiet) {
    const outcome = vbd.error ? '' : '; what they had written was written back';
    printNote(`cut off from ${vbd.vdev} of bus ${vbd.bus}: ${describeHolders(vbd.cutOff)}${outcome}`);
  }
  if (vbd.error) complain(flushError(vbd, vbd.error));
  else if (options.verbose) printNote(`detached ${vbd.vdev} of bus ${vbd.bus}`);
}

/** It went, but the last flush failed: the message must say that writes may be lost. */
export function flushError({ bus, vdev }: DetachedVbd, error: PlainError): FusetapError {
  const details: ErrorDetails = { ...error, hint: error.hint ?? 'writes since the last good flush may be lost' };
  return new FusetapError(
    error.code,
    `detached ${vdev} of bus ${bus}, but not all is durable: ${error.message}`,
    details,
  );
}

function jsonOf(gone: readonly DetachedVbd[]): unknown[] {
  return gone.map((vbd) => (vbd.error ? { ...vbd, error: jsonError(FusetapError.from(vbd.error)) } : vbd));
}
