/** The table of a run: for the terminal, and for docs/from-tapdisk.md. */
import { FusetapError } from '../../../drivers/errors.js';
import type { Scenario } from './scenarios.js';

export interface Row {
  readonly scenario: Scenario;
  readonly result: 'ok' | 'failed' | 'no answer' | 'not run';
  /** of the dom0's clock; null if it did not end */
  readonly seconds: number | null;
}

export interface Run {
  readonly rows: readonly Row[];
  /** the versions of what took part, in words */
  readonly about: string;
  /** of the clock on the wall, from the start of the build to the last scenario */
  readonly minutes: number;
}

/** As on a terminal: name, result, seconds. */
export function printTable({ rows, about, minutes }: Run): string {
  const width = Math.max(...rows.map(({ scenario }) => scenario.name.length), 'scenario'.length);
  const line = (name: string, result: string, seconds: string): string =>
    `${name.padEnd(width)}  ${result.padEnd(9)}  ${seconds.padStart(7)}`;
  return [
    line('scenario', 'result', 'seconds'),
    ...rows.map(({ scenario, result, seconds }) => line(scenario.name, result, secondsText(seconds))),
    '',
    `${rows.filter(({ result }) => result === 'ok').length} of ${rows.length} ok, in ${minutes.toFixed(0)} minutes`,
    about,
  ].join('\n');
}

/** As in the docs: also what each scenario shows. */
export function markdownTable({ rows, about }: Run): string {
  return [
    `${about}, in QEMU without KVM:`,
    '',
    '| scenario | what happens | result | seconds |',
    '| --- | --- | --- | --- |',
    ...rows.map(
      ({ scenario, result, seconds }) =>
        `| ${scenario.name} | ${scenario.about.replaceAll('|', '\\|')} | ${result} | ${secondsText(seconds)} |`,
    ),
  ].join('\n');
}

const BEGIN = '<!-- scripts/xen-trial --write writes from here -->';
const END = '<!-- to here -->';

/**
 * @param page the text of a page of the docs
 * @returns the page with the table between its two marks
 * @throws FusetapError if the marks are not there
 */
export function replaceTable(page: string, table: string): string {
  const [from, to] = [page.indexOf(BEGIN), page.indexOf(END)];
  if (from < 0 || to < from) {
    throw new FusetapError('USAGE', 'the page has no place for the table', {
      hint: `it needs the lines "${BEGIN}" and "${END}"`,
    });
  }
  return `${page.slice(0, from)}${BEGIN}\n\n${table}\n\n${page.slice(to)}`;
}

function secondsText(seconds: number | null): string {
  return seconds === null ? '' : seconds.toFixed(1);
}
