/**
 * Finds out whether a file is in use, on a transport that does not get FORGET.
 *
 * libfuse gets the kernel's FORGET and does not pass it on. But its effect is visible: a file that the kernel has
 * forgotten gets another inode number at the next lookup, and numbers are not reused (a counter of 32 bits).
 *
 *      shown ─► stat: number 7 ─► hidden ─► stat: ENOENT, the kernel drops its cached name ─► shown ─► stat: number?
 *        ▲                                                                  still 7: in use ◄─┤
 *        └─────────────── a little later, again ◄─────────────────────────┘                   └─► 8: not in use
 *
 * So the answer comes from the kernel, as for the kernel transport: open files, mappings, O_PATH and loop devices of
 * all processes count. Between the second and the third step the name is visible for a moment. Opens are refused then,
 * but a program that looks it up at that moment may get an O_PATH descriptor, which is not noticed.
 */
import { setTimeout as delay } from 'node:timers/promises';

const RETRY_MS = 40;

export interface HiddenFile {
  /** shows the name to lookups, or hides it */
  show(visible: boolean): void;
  /** looks the name up in another process: its inode number, null if the name is not there */
  lookUp(): Promise<number | null>;
}

/** Resolves to true, with the file hidden, when it is not in use; to false when the signal is aborted. */
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
