/**
 * Keeps the young generation of the heap as small as it is at the start: every bus pays for its memory, and most of it would be
 * garbage. By default it grows to 32 MB while a process is busy.
 *
 * This is done when a program has loaded, and not by a flag of its command line: Node has its own modules in compiled form, which
 * V8 refuses if a flag differs from what they were compiled with. To compile them anew would take as long as a start of Node.
 */
import { setFlagsFromString } from 'node:v8';

export function keepYoungHeapSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}
