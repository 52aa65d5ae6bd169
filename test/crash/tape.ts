/** What a process did to its files, call by call: enough to make each state that a file can have had. */
import type { SparseBytes } from './sparse-bytes.js';

/** Files by the roles under which a driver is given them. */
export type Files = Readonly<Record<string, SparseBytes>>;

export type Change =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Buffer }
  | { readonly kind: 'zero'; readonly offset: number; readonly length: number; readonly punch: boolean }
  | { readonly kind: 'grow'; readonly size: number };

/** A call that the kernel has done. */
export type Call = {
  /** the role of the file */
  readonly file: string;
  /** the call was durable itself */
  readonly durable: boolean;
} & (
  | Change
  | {
      readonly kind: 'flush';
      /** how many calls of the tape were done when the flush began: these are durable now */
      readonly covers: number;
    }
);

export function copyFiles(files: Files): Files {
  return Object.fromEntries(Object.entries(files).map(([role, bytes]) => [role, bytes.copy()]));
}

/** Does a call to the files. */
export function apply(files: Files, call: Call): void {
  const file = fileOf(files, call.file);
  if (call.kind === 'write') file.write(call.bytes, call.offset);
  else if (call.kind === 'zero') file.zero(call.offset, call.length);
  else if (call.kind === 'grow') file.resize(Math.max(file.size, call.size));
}

/** The files after some calls: a prefix of a tape, or any of it. */
export function replay(start: Files, calls: readonly Call[]): Files {
  const files = copyFiles(start);
  for (const call of calls) apply(files, call);
  return files;
}

export function fileOf(files: Files, role: string): SparseBytes {
  const file = files[role];
  if (file === undefined) throw new RangeError(`there is no file ${role}`);
  return file;
}

/** A call in a few words, for messages. */
export function describeCall(call: Call): string {
  const where = call.file === 'file' ? '' : ` of ${call.file}`;
  const how = call.durable ? ', durable' : '';
  if (call.kind === 'write') return `write ${call.offset}+${call.bytes.length}${where}${how}`;
  if (call.kind === 'zero') return `${call.punch ? 'punch' : 'zero'} ${call.offset}+${call.length}${where}${how}`;
  return call.kind === 'grow' ? `grow to ${call.size}${where}` : `flush${where}`;
}
