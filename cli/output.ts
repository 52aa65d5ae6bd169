/**
 * The output of all commands: results on stdout, everything else on stderr, an error as one line.
 *
 *      fusetap: what failed: where: how to fix
 */
import { defined } from '../drivers/defined.js';
import { type ErrorCode, EXIT_CODES, FusetapError, type Holder, type PlainError } from '../drivers/errors.js';
import { escapeControls } from '../drivers/quote.js';
import { deletedDirectory } from '../mount/client/finding/working-directory.js';

export { humanSize } from '../drivers/human-size.js';

/** An error as `--json` shows it. A key without a value is null. */
export interface JsonError {
  code: ErrorCode;
  message: string;
  hint: string | null;
  holders: Holder[];
}

/** Prints a line of the result. */
export function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

/** Prints the result as one JSON document. */
export function printJson(document: unknown): void {
  print(JSON.stringify(document, null, 2));
}

/** Prints a note on stderr. */
export function printNote(text: string): void {
  process.stderr.write(`fusetap: ${escapeControls(text)}\n`);
}

/** Prints on stderr what a long command waits for: on a terminal, or with -v. */
export function tellWaits(options: { quiet?: boolean; verbose?: boolean }): { waits?: (text: string) => void } {
  const isWanted = options.verbose || (process.stderr.isTTY && !options.quiet);
  return isWanted ? { waits: printNote } : {};
}

/**
 * Prints an error on stderr: one line, with the stack if `debug` asks for it or if the error is unexpected.
 * @returns its exit status
 */
export function printError(thrown: unknown, debug = false): number {
  const error = knownError(thrown);
  const plain = plainError(error);
  printNote(plain.hint ? `${plain.message}: ${plain.hint}` : plain.message);
  if (debug || !(error instanceof FusetapError)) printStack(error);
  return exitStatus(plain.code);
}

/** Prints an error on stderr and, with `--json`, on stdout. @returns its exit status */
export function reportFailure(error: unknown, options: { json?: boolean; debug?: boolean }): number {
  if (options.json) printJson({ error: jsonError(error) });
  return printError(error, options.debug);
}

function printStack(error: unknown): void {
  if (error instanceof Error) process.stderr.write(`${error.stack}\n`);
  if (error instanceof Error && error.cause !== undefined) {
    process.stderr.write('caused by ');
    printStack(error.cause);
  }
}

/** An error as `--json` prints it. */
export function jsonError(error: unknown): JsonError {
  const { code, message, hint, holders } = plainError(knownError(error));
  return { code, message, hint: hint ?? null, holders: holders ?? [] };
}

/** Translates the error that Node throws for a relative path if the working directory was deleted. */
function knownError(error: unknown): unknown {
  if (!(error instanceof Error) || (error as NodeJS.ErrnoException).syscall !== 'uv_cwd') return error;
  return deletedDirectory(error);
}

/** fits a hint to the command that runs; undefined: nothing of it applies */
let fit: (hint: string) => string | undefined = (hint) => hint;

/** Sets how hints are fitted to the command; see fit-hint.ts. */
export function fitHints(toCommand: typeof fit): void {
  fit = toCommand;
}

function plainError(error: unknown): PlainError {
  if (error instanceof FusetapError) {
    const { hint, ...plain } = error.toJSON();
    const fitted = hint === undefined ? undefined : fit(hint);
    return { ...plain, ...defined({ hint: fitted }) };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { code: 'FAILED', message: `this should not have happened: ${message}`, hint: 'please report it' };
}

/** The exit status of a code; that of FAILED for a code that only a newer bus knows. */
export function exitStatus(code: ErrorCode): number {
  return EXIT_CODES[code] ?? EXIT_CODES.FAILED;
}

/** A column of a table: its head, and how its cells are aligned. */
export interface Column {
  readonly head: string;
  readonly align?: 'right';
}

/** Prints rows below their heads, aligned. A row stays one line, whatever its cells contain. */
export function printTable(columns: readonly Column[], rows: readonly (readonly string[])[]): void {
  const lines = [columns.map((column) => column.head), ...rows.map((row) => row.map(escapeControls))];
  const widths = columns.map((_, index) => Math.max(...lines.map((line) => line[index]?.length ?? 0)));
  for (const line of lines) {
    const cells = columns.map(({ align }, index) => {
      const [cell, width] = [line[index] ?? '', widths[index] ?? 0];
      return align === 'right' ? cell.padStart(width) : cell.padEnd(width);
    });
    print(cells.join('  ').trimEnd());
  }
}

/** Prints names and values, the values aligned. A pair stays one line, whatever the value contains. */
export function printPairs(pairs: readonly (readonly [name: string, value: string])[]): void {
  const width = Math.max(...pairs.map(([name]) => name.length));
  for (const [name, value] of pairs) print(`${name.padEnd(width)}  ${escapeControls(value)}`);
}

/** what was done although it could not be printed */
let doneAlready: string | undefined;

/** Sets the hint for an error of stdout: what was done already (a vbd is attached), and how to undo it. */
export function sayIfUnprinted(done: string): void {
  doneAlready = done;
}

/** Aborted when a write finds that the reader of stdout has left. */
export function readerLeft(): AbortSignal {
  const left = new AbortController();
  process.stdout.on('error', () => left.abort());
  return left.signal;
}

/** Ignores a reader of stdout or stderr that goes away (`fusetap ls | head -1`); other errors of stdout are exit 1. */
export function watchStreams(): void {
  process.stderr.on('error', () => {});
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') return;
    process.exitCode = printError(
      new FusetapError('FAILED', `cannot write to stdout: ${error.code}`, { hint: doneAlready }),
    );
  });
}
