/**
 * The output of a test run: a line for each file when it ends, with its failures in full below; then the skipped tests
 * with reasons, the failed tests, and one line for programs to read.
 */
import type { Failure, FileResult, Skip } from './file.js';

export interface NamedResult extends FileResult {
  /** the source file, for example `test/drivers/ram.test.ts` */
  name: string;
}

const MOST_DETAILS = 20;

/** The lines for a file that has ended. */
export function describeFile(result: NamedResult): string {
  const { name, failures, passed, skips, durationMs, output } = result;
  const counts = [
    ...(failures.length > 0 ? [`${failures.length} failed`] : []),
    `${passed} passed`,
    ...(skips.length > 0 ? [`${skips.length} skipped`] : []),
  ].join(', ');
  const head = `${failures.length > 0 ? 'FAIL' : 'ok  '} ${name}  ${counts}  ${(durationMs / 1000).toFixed(1)} s`;
  if (failures.length === 0) return head;
  const said = output.trimEnd() === '' ? [] : [indent(`its output:\n${indent(output.trimEnd(), 2)}`, 5)];
  return [head, ...failures.map((failure) => indent(describeFailure(failure), 5)), ...said].join('\n');
}

function describeFailure({ name, diagnostics }: Failure): string {
  const lines = [`✗ ${name}`];
  for (const [key, value] of Object.entries(diagnostics ?? {})) {
    // leave out the source that tap quotes: the position is enough
    if (key === 'source' || value === null || value === undefined) continue;
    lines.push(indent(`${key}: ${describeValue(key, value)}`, 2));
  }
  return lines.join('\n');
}

function describeValue(key: string, value: unknown): string {
  if (key === 'at') {
    const { fileName, lineNumber, columnNumber } = value as Record<string, unknown>;
    return [fileName, lineNumber, columnNumber].join(':');
  }
  const text = typeof value === 'string' ? value.trimEnd() : (JSON.stringify(value, null, 2) ?? String(value));
  return text.includes('\n') ? `\n${indent(text, 2)}` : text;
}

/** The lines about a run that a signal ended. @param names the files that were not run to their end */
export function describeInterruption(signal: NodeJS.Signals, names: readonly string[]): string {
  return ['', `ended by ${signal}; not run to their end:`, ...names.map((name) => `  ${name}`)].join('\n');
}

/** The lines at the end of the run, the last of them `N passed, N failed, N skipped`. */
export function describeRun(results: readonly NamedResult[]): string {
  const lines: string[] = [];
  const skips = results.flatMap(({ name, skips }) => skips.map((skip) => `  ${name}: ${describeSkip(skip)}`));
  if (skips.length > 0) lines.push('', 'skipped:', ...skips);
  const failures = results.flatMap(({ name, failures }) => failures.map((failure) => ({ name, failure })));
  if (failures.length > 0)
    lines.push('', 'failed:', ...failures.map(({ name, failure }) => describeAgain(name, failure)));
  const passed = results.reduce((sum, result) => sum + result.passed, 0);
  return [...lines, '', `${passed} passed, ${failures.length} failed, ${skips.length} skipped`].join('\n');
}

/** A failure at the end of the run, with its details: of a long output often only the end is kept. */
function describeAgain(file: string, failure: Failure): string {
  const [, ...details] = describeFailure(failure).split('\n');
  const left = details.length - MOST_DETAILS;
  const shown = left > 1 ? [...details.slice(0, MOST_DETAILS), `  (${left} lines more above)`] : details;
  return [`  ${file}: ${failure.name}`, ...shown.map((line) => indent(line, 4))].join('\n');
}

const describeSkip = ({ name, reason }: Skip): string => (reason === '' ? name : `${name}: ${reason}`);

function indent(text: string, columns: number): string {
  return text.replace(/^(?=.)/gm, ' '.repeat(columns));
}
