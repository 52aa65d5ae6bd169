/** The refusal to repair an image whose references contradict each other: nobody knows which of them are right. */
import { FusetapError } from '../../errors.js';
import type { Findings } from '../../examining/findings.js';

/** @throws FusetapError DENIED if there is a finding */
export function refuse({ lines: [line] }: Findings): void {
  if (line !== undefined) throw damaged(line);
}

export function damaged(what: string): FusetapError {
  return new FusetapError('DENIED', `the qcow2 image is damaged: ${what}`, {
    hint: 'attach it with mode r and save what it has, or repair it: qemu-img check -r all IMAGE',
  });
}
