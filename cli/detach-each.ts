/**
 * Detaches several items one after another and prints the results. An error does not stop the others; the first error
 * decides the exit status.
 */
import { type ErrorDetails, FusetapError, type PlainError } from '../drivers/errors.js';
import { describeHolders } from '../mount/client/index.js';
import type { DetachedVbd, DetachResult } from '../mount/control/interface.js';
import type { SharedOptions } from './options.js';
import { jsonError, printError, printJson, printNote } from './output.js';

/**
 * Detaches each item. With `--json` prints the detached vbds as an array, with `error` if a flush failed. If an item
 * could not be detached, prints `{"error": the first error, "detached": the detached vbds}`.
 */
export async function detachEach<Item>(
  items: readonly Item[],
  options: SharedOptions,
  detach: (item: Item) => Promise<DetachResult>,
): Promise<void> {
  const gone: DetachedVbd[] = [];
  const errors: unknown[] = [];
  const statuses: number[] = [];
  const report = (error: unknown): void => void statuses.push(printError(error, options.debug));
  for (const item of items) {
    try {
      const { vbds } = await detach(item);
      gone.push(...vbds);
      for (const vbd of vbds) printDetached(vbd, options, report);
    } catch (error) {
      errors.push(error);
      report(error);
    }
  }
  if (options.json)
    printJson(errors.length > 0 ? { error: jsonError(errors[0]), detached: jsonOf(gone) } : jsonOf(gone));
  if (statuses[0] !== undefined) process.exitCode = statuses[0];
}

function printDetached(vbd: DetachedVbd, options: SharedOptions, report: (error: unknown) => void): void {
  if (!options.quiet) for (const remark of remarksOn(vbd)) printNote(remark);
  if (vbd.cutOff && !options.quiet) {
    const outcome = vbd.error ? '' : '; their data was written back';
    printNote(`cut off from ${vbd.vdev} of bus ${vbd.bus}: ${describeHolders(vbd.cutOff)}${outcome}`);
  }
  if (vbd.error) report(flushError(vbd, vbd.error));
  else if (options.verbose) printNote(`detached ${vbd.vdev} of bus ${vbd.bus}`);
}

/** What happened to the image while it was attached. */
function remarksOn({ image, vdev, bus, ...vbd }: DetachedVbd): string[] {
  if (vbd.deleted) return [`${image} was deleted while it was attached: its data is gone`];
  const moved = vbd.movedTo ? [`${image} was moved while it was attached: its data is in ${vbd.movedTo}`] : [];
  const isChanged = vbd.movedTo ? vbd.writtenOutside : vbd.changedOutside;
  if (!isChanged) return moved;
  return [...moved, `${image} was changed by somebody else while it was attached as ${vdev} of bus ${bus}`];
}

/** The error for a vbd that was detached although its last flush failed: it must say that writes may be lost. */
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
