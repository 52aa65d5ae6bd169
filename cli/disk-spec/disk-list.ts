/**
 * The disks of a domain's configuration file: of xl, and of xm unless the list is computed by Python code.
 *
 *     disk = [ 'file:/img/root.img,hda,w',      # comments, single or double quotes,
 *              "tap:aio:/img/data.img,hdb,w", ] # several lines, a comma at the end
 *
 * Only `disk = […]` and `disk += […]` are read; everything else is ignored.
 */
import { quoted } from '../../drivers/quote.js';
import { refuse } from './disk-spec.js';

interface Token {
  readonly text: string;
  /** where it begins, in UTF-16 units */
  readonly offset: number;
}

/** More than any real file of this kind; limits the time that the patterns below can take. */
const MAX_LENGTH = 2 ** 20;

// in this order: white space within a line, comments, strings (Python's long ones first), words, operators, the rest;
// a string without an end quote ends with its line
const TOKEN =
  /[^\S\n]+|#[^\n]*|'''[\s\S]*?'''|"""[\s\S]*?"""|'(?:[^'\\\n]|\\[\s\S])*'?|"(?:[^"\\\n]|\\[\s\S])*"?|[\p{L}\p{N}_.]+|\+=|==|[\s\S]/gu;

const CLOSED_STRING = /^(?:('''|""")([\s\S]*)\1|'((?:[^'\\]|\\[\s\S])*)'|"((?:[^"\\]|\\[\s\S])*)")$/;

function* tokensOf(text: string): Generator<Token> {
  for (const match of text.matchAll(TOKEN)) {
    if (!/^(?:[^\S\n]|#)/.test(match[0])) yield { text: match[0], offset: match.index };
  }
}

/** A string of the disk list, and its position. */
export interface ListedDisk {
  readonly text: string;
  /** in UTF-16 units; see lineAt */
  readonly offset: number;
}

/**
 * The strings of the file's disk list, in order; none if the file has no list. A second `disk =` replaces the first,
 * `disk +=` adds to it, as in xm and xl.
 *
 * @throws FusetapError USAGE for a list that does not end or contains anything but quoted strings, with the line
 */
export function parseDiskList(text: string): string[] {
  return listDisks(text).map((disk) => disk.text);
}

/** The same, each with its position. @throws FusetapError USAGE */
export function listDisks(text: string): ListedDisk[] {
  if (text.length > MAX_LENGTH) throw refuse(`the file has ${text.length} characters`, 'is it a configuration file?');
  const tokens = [...tokensOf(text)];
  const disks: ListedDisk[] = [];
  let depth = 0;
  for (let i = 0; i < tokens.length; i++) {
    const word = tokens[i]?.text ?? '';
    if ('[({'.includes(word)) depth++;
    else if ('])}'.includes(word)) depth = Math.max(0, depth - 1);
    else if (word === 'disk' && depth === 0 && beginsStatement(tokens[i - 1])) {
      const operator = tokens[i + 1]?.text;
      if (operator !== '=' && operator !== '+=') continue;
      const list = readList(text, tokens, i + 2);
      if (operator === '=') disks.length = 0;
      // not push(...list): a long list is more arguments than a call can take
      for (const disk of list.strings) disks.push(disk);
      i = list.end;
    }
  }
  return disks;
}

function beginsStatement(before: Token | undefined): boolean {
  return before === undefined || before.text === '\n' || before.text === ';';
}

/** Reads `[ 'a', 'b' ]` from the token at `start`; `end` is the index of the closing bracket. */
function readList(text: string, tokens: readonly Token[], start: number): { strings: ListedDisk[]; end: number } {
  const strings: ListedDisk[] = [];
  if (tokens[start]?.text !== '[') {
    throw refuseAt(text, tokens[start], 'disk is not a list', "write disk = [ 'IMAGE,VDEV,MODE' ]");
  }
  let needsComma = false;
  for (let i = start + 1; i < tokens.length; i++) {
    const token = tokens[i] as Token;
    if (token.text === '\n') continue;
    if (token.text === ']') return { strings, end: i };
    if (needsComma !== (token.text === ',')) throw refuseToken(text, token, needsComma);
    if (!needsComma) strings.push({ text: stringOf(text, token), offset: token.offset });
    needsComma = !needsComma;
  }
  throw refuseAt(text, tokens[start], 'the disk list does not end', 'close it with ]');
}

function refuseToken(text: string, token: Token, needsComma: boolean): Error {
  return needsComma
    ? refuseAt(text, token, `no comma before ${quoted(token.text)} in the disk list`, 'put commas between the disks')
    : refuseAt(text, token, 'a comma without a disk in the disk list', 'remove it');
}

function stringOf(text: string, token: Token): string {
  const closed = CLOSED_STRING.exec(token.text);
  if (closed === null) {
    throw refuseAt(
      text,
      token,
      `no quoted disk at ${quoted(token.text)} in the disk list`,
      "write 'IMAGE,VDEV,MODE', …",
    );
  }
  return (closed[2] ?? closed[3] ?? closed[4] ?? '').replace(/\\([\s\S])/g, resolveEscape);
}

/** Escapes that both kinds of files have; a backslash before any other character is kept, as in Python. */
function resolveEscape(sequence: string, character: string): string {
  if (character === '\n') return '';
  if (character === 'n') return '\n';
  if (character === 't') return '\t';
  return `'"\\`.includes(character) ? character : sequence;
}

function refuseAt(text: string, token: Token | undefined, message: string, hint: string): Error {
  return refuse(`line ${lineAt(text, token?.offset ?? text.length)}: ${message}`, hint);
}

/** The number of the line that an offset is in; the first is 1. */
export function lineAt(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length;
}
