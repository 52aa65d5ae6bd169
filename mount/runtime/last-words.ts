/**
 * The last words of a server: why it ends itself. A server that meets an error which nobody handles can only kill itself
 * (see server/main.ts), and a signal does not tell why. So it first writes the reason to `state/NAME/last-words`, where
 * its keeper looks when it is dead.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface LastWords {
  readonly pid: number;
  /** as words for the log */
  readonly how: string;
  /** the driver whose code failed, if known */
  readonly driver?: string;
  /** the vbds that use this driver, if known */
  readonly vdev?: string;
}

function pathOf(stateDir: string): string {
  return join(stateDir, 'last-words');
}

/** Writes them. Never fails, because the process ends anyway. */
export function leaveLastWords(stateDir: string, words: LastWords): void {
  try {
    writeFileSync(pathOf(stateDir), JSON.stringify(words), { mode: 0o600 });
  } catch {
    // the log has the error too
  }
}

/** Takes the words of a process that has died; null if it left none. */
export function takeLastWords(stateDir: string, pid: number | null): LastWords | null {
  try {
    const words = JSON.parse(readFileSync(pathOf(stateDir), 'utf8')) as LastWords;
    rmSync(pathOf(stateDir), { force: true });
    return words.pid === pid ? words : null;
  } catch {
    return null;
  }
}
