/**
 * Draws a tree as text.
 *
 *      bus 0, running
 *      ├─keeper 71
 *      └─xvda
 *        └─/dev/loop0
 */

export interface Branch {
  readonly text: string;
  readonly below: readonly Branch[];
}

export interface Lines {
  readonly fork: string;
  readonly last: string;
  readonly pass: string;
}

const UTF8: Lines = { fork: '├─', last: '└─', pass: '│ ' };
const ASCII: Lines = { fork: '|-', last: '`-', pass: '| ' };

/** The characters for lines that the locale of a terminal can show. */
export function linesFor({ LC_ALL, LC_CTYPE, LANG }: NodeJS.ProcessEnv): Lines {
  return /utf-?8/i.test(LC_ALL || LC_CTYPE || LANG || '') ? UTF8 : ASCII;
}

/** The lines of a tree, its root first. */
export function drawTree({ text, below }: Branch, lines: Lines): string[] {
  const drawn = below.flatMap((branch, index) => {
    const isLast = index === below.length - 1;
    const [first = '', ...rest] = drawTree(branch, lines);
    return [(isLast ? lines.last : lines.fork) + first, ...rest.map((line) => (isLast ? '  ' : lines.pass) + line)];
  });
  return [text, ...drawn];
}
