/**
 * Writes man pages in the macros of man(7). A page is a list of blocks; their texts are roff already, made by `plain` or
 * `marked`, so that nothing can be escaped twice or not at all.
 */

/** Text with its markup, safe to stand in a page. */
export type Roff = string & { readonly roff: never };

/** What a page consists of. */
export type Block =
  | { readonly kind: 'section' | 'subsection' | 'paragraph'; readonly text: Roff }
  /** a term and its meaning */
  | { readonly kind: 'item'; readonly term: Roff; readonly text: Roff }
  /** lines that stay as they are */
  | { readonly kind: 'code'; readonly lines: readonly string[] };

export interface Page {
  /** `fusetap-attach` */
  readonly name: string;
  /** 1, 7 or 8 */
  readonly section: number;
  readonly blocks: readonly Block[];
}

/** For the first line of every page. */
export interface Edition {
  readonly version: string;
  readonly date: Date;
}

/** Escapes a text. Its characters are printed as they are, a hyphen also as an ASCII hyphen that can be copied. */
export function plain(text: string): Roff {
  const escaped = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll('…', '...')
    .replaceAll(/[^\x20-\x7e\n]/g, (character) => `\\[u${hex(character)}]`);
  return escaped as Roff;
}

const hex = (character: string): string => (character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, '0');

export function bold(text: string): Roff {
  return `\\fB${plain(text)}\\fR` as Roff;
}

export function italic(text: string): Roff {
  return `\\fI${plain(text)}\\fR` as Roff;
}

export function join(parts: readonly Roff[], separator = ''): Roff {
  return parts.join(separator) as Roff;
}

/** Escapes a text of the help. Options in it become bold: `--bus`, `-r`. */
export function helpText(text: string): Roff {
  return join(
    text.split(/((?<![\w-])--?[a-z][a-z-]*)/i).map((part, index) => (index % 2 === 1 ? bold(part) : plain(part))),
  );
}

/** Escapes a line of Markdown: code and strong words become bold, of links only the text stays. */
export function marked(text: string): Roff {
  const parts = text
    .replaceAll(/\[([^\]]+)\]\([^)]+\)/g, '$1')
    .replaceAll(/(?<![*\w])\*(?=\w)([^*]+)\*(?![*\w])/g, '$1')
    .split(/(`[^`]+`|\*\*[^*]+\*\*)/);
  return join(
    parts.map((part, index) => (index % 2 === 1 ? bold(part.replaceAll(/^(`|\*\*)|(`|\*\*)$/g, '')) : plain(part))),
  );
}

/** `fusetap-attach(1)`, as pages are named. */
export function reference(name: string, section: number): Roff {
  return join([bold(name), plain(`(${section})`)]);
}

/** The text of the page. */
export function write({ name, section, blocks }: Page, { version, date }: Edition): string {
  const day = date.toISOString().slice(0, 10);
  const head = `.TH "${name.toUpperCase()}" "${section}" "${day}" "fusetap ${version}" "fusetap manual"`;
  // ragged lines: adjusted ones have gaps around long options and paths
  const texts = blocks.map((block, index) => writeBlock(block, blocks[index - 1]));
  return [head, '.ad l', ...texts, ''].join('\n');
}

function writeBlock(block: Block, before: Block | undefined): string {
  // a title begins a paragraph by itself
  const begin = before?.kind === 'section' || before?.kind === 'subsection' ? [] : ['.PP'];
  switch (block.kind) {
    case 'section':
      return `.SH ${block.text.toUpperCase()}`;
    case 'subsection':
      return `.SS ${block.text}`;
    case 'paragraph':
      return [...begin, line(block.text)].join('\n');
    case 'item':
      return `.TP\n${line(block.term)}\n${line(block.text)}`;
    case 'code':
      return [...begin, '.RS 4', '.EX', ...block.lines.map((text) => line(plain(text))), '.EE', '.RE'].join('\n');
  }
}

/** A line of text that roff could take for a request stays text. */
function line(text: Roff): string {
  return text.replaceAll(/^(?=[.'])/gm, '\\&');
}
