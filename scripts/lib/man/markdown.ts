/**
 * Turns pages of the documentation into blocks of man pages. Only what these pages use is understood: headings,
 * paragraphs, lists, tables, and code that is indented or fenced.
 */
import { type Block, marked, plain, type Roff } from './roff.js';

/** The part of a page below a heading, up to the next one of the same or a higher level. @throws Error if there is none */
export function sectionOf(page: string, heading: string): string {
  const lines = page.split('\n');
  const start = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, '') === heading);
  if (start < 0) throw new Error(`no section ${heading}`);
  const level = /^#+/.exec(lines[start] ?? '')?.[0].length ?? 1;
  const end = lines.findIndex((line, index) => index > start && (/^(#+) /.exec(line)?.[1]?.length ?? 9) <= level);
  return lines.slice(start + 1, end < 0 ? undefined : end).join('\n');
}

/** The rows of a table in a text, without its head, as cells. */
export function tableIn(text: string): string[][] {
  return (text.match(/^\|.*$/gm) ?? []).slice(2).map(cellsOf);
}

/** Code, fenced or indented; a table; a heading; an item of a list with its further lines; a paragraph. */
const CHUNK = new RegExp(
  [
    /^```.*\n(?<fenced>[\s\S]*?)^```$/,
    /^(?<code> {4}.*\n(?:^ {4}.*\n|^\n(?= {4}))*)/,
    /(?<table>(?:^\|.*\n)+)/,
    /^#+ (?<heading>.*)$/,
    /^(?<mark>-|\d+\.) (?<item>.*\n(?:^ +\S.*\n)*)/,
    /(?<paragraph>(?:^(?!#|\||- |\d+\. |```| {4}).+\n)+)/,
  ]
    .map(({ source }) => source)
    .join('|'),
  'gm',
);

/** The blocks of a text. */
export function blocksOf(text: string): Block[] {
  return [...`${text}\n`.matchAll(CHUNK)].flatMap(({ groups = {} }) => {
    const { fenced, code, table, heading, mark, item, paragraph } = groups;
    if (fenced !== undefined) return [{ kind: 'code', lines: linesOf(fenced) }];
    if (code !== undefined) return [{ kind: 'code', lines: linesOf(code).map((line) => line.slice(4)) }];
    if (table !== undefined) return rowsOf(linesOf(table));
    if (heading !== undefined) return [{ kind: 'subsection', text: marked(heading) }];
    if (item !== undefined) return [{ kind: 'item', term: plain(mark === '-' ? '*' : `${mark}`), text: flow(item) }];
    return [{ kind: 'paragraph', text: flow(paragraph ?? '') }];
  });
}

const linesOf = (text: string): string[] => text.trimEnd().split('\n');

/** A paragraph as one line: at the end of a line, roff would put two spaces behind a sentence. */
const flow = (text: string): Roff =>
  marked(
    linesOf(text)
      .map((line) => line.trim())
      .join(' '),
  );

/** A row becomes an item: its first cell is the term, the others are named by their heads. */
function rowsOf(lines: readonly string[]): Block[] {
  const heads = cellsOf(lines[0] ?? '').slice(1);
  return lines.slice(2).map((line) => {
    const [term = '', ...cells] = cellsOf(line);
    const named = cells.flatMap((cell, i) =>
      cell === '' ? [] : [heads[i] && cells.length > 1 ? `${heads[i]}: ${cell}` : cell],
    );
    return { kind: 'item', term: marked(term), text: marked(named.join('; ')) };
  });
}

function cellsOf(line: string): string[] {
  return line
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim());
}
