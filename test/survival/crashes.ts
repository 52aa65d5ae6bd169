/** Makes servers crash at a chosen step: see mount/fuse/thread/crash-point.ts and crash-hook.ts. */
import { mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { CrashStep } from '../../mount/fuse/thread/crash-point.js';

const HOOK = new URL('./crash-hook.js', import.meta.url);

export class Crashes {
  readonly #directory = realpathSync(mkdtempSync(join(tmpdir(), 'crashes-')));
  #count = 0;

  /** The environment for the keeper. */
  get env(): Record<string, string> {
    return { FUSETAP_TEST_CRASH: this.#directory, NODE_OPTIONS: `--import=${HOOK}` };
  }

  /** Makes the next `times` servers die at that step with that opcode (0: no request). */
  arm(step: CrashStep, opcode: number, times = 1, kind: 'kill' | 'crash' | 'throw' | 'spin' = 'kill'): void {
    for (let i = 0; i < times; i++)
      writeFileSync(join(this.#directory, `${step}-${opcode}-${kind}${this.#count++}`), '');
  }

  /** Makes no server die any more. */
  disarm(): void {
    for (const name of readdirSync(this.#directory)) rmSync(join(this.#directory, name), { force: true });
  }

  /** How many crashes are left. */
  left(): number {
    return readdirSync(this.#directory).length;
  }
}
