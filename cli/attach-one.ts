/** Attaches one disk for a command: with a progress bar, and notes on stderr. */
import { defined } from '../drivers/defined.js';
import { attach } from '../mount/client/index.js';
import type { AttachResult } from '../mount/control/interface.js';
import type { Wanted } from './attach-request.js';
import { chosenBus, type SharedOptions } from './options.js';
import { printNote } from './output.js';
import { withProgress } from './progress-bar.js';

/** @throws FusetapError what `attach` throws */
export async function attachOne({ request, notes }: Wanted, options: SharedOptions): Promise<AttachResult> {
  if (options.verbose) notes.forEach(printNote);
  const place = await chosenBus(options);
  const { notes: remarks = [], ...vbd } = await withProgress('copying', options, (progress) =>
    attach(place, request, defined({ progress })),
  );
  if (!options.quiet) remarks.forEach(printNote);
  return vbd;
}
