/**
 * Whether anybody holds a file, on a transport that is not told.
 *
 * libfuse gets the kernel's FORGET and keeps it for itself. But it shows it: a file that the kernel has forgotten gets
 * another number when it is looked up again, and numbers are not reused (a counter of 32 bits).
 *
 *      shown ─► stat: number 7 ─► hidden ─► stat: ENOENT, the kernel drops what it had cached ─► shown ─► stat: number?
 *        ▲                                                            still 7: somebody holds it ◄─┤
 *        └─────────────── a little later, once more ◄─────────────────────────┘                    └─► 8: nobody does
 *
 * So the answer is the kernel's own, as it is for the kernel transport: open files, mappings, O_PATH, loop devices all
 * count, whoever has them. Between the second and the third step the name is there for a moment. Opens are refused
 * then, but a program that looks just then may get an O_PATH descriptor that nobody waits for.
 */
import { setTimeout as delay } from 'node:timers/promises';

const RETRY_MS = 40;

export interface HiddenFile {
  /** shows the name to lookups, or hides it */
  show(visible: boolean): void;
  /** looks the name up in another process: its number, null if there is none */
  lookUp(): Promise<number | null>;
}

/** Resolves to true, with the file hidden, when nobody holds it; to false once the signal is aborted. */
export async function awaitForgotten(file: HiddenFile, signal: AbortSignal): Promise<boolean> {
  while (!signal.aborted) {
    if (await wasForgotten(file, signal)) return true;
    await delay(RETRY_MS, null, { signal }).catch(() => {});
  }
  return false;
}

async function wasForgotten(file: HiddenFile, signal: AbortSignal): Promise<boolean> {
  const look = async (visible: boolean): Promise<number | null> => {
    if (signal.aborted) return null;
    file.show(visible);
    return await file.lookUp();
  };
  const before = await look(true);
  await look(false);
  const after = await look(true);
  if (signal.aborted) return false;
  file.show(false);
  return before !== null && after !== null && before !== after;
}
