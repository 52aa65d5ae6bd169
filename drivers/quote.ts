/** Writes values into messages. Whatever a value contains, it stays on one line and cannot control a terminal. */

const QUOTED_LENGTH = 80;
const SHORT: Readonly<Record<string, string>> = { '\n': '\\n', '\t': '\\t', '\r': '\\r' };

/** A received value, in quotes, cut if it is long. */
export function quoted(value: string): string {
  const characters = [...value.slice(0, 2 * QUOTED_LENGTH)];
  const isCut = characters.length > QUOTED_LENGTH || value.length > 2 * QUOTED_LENGTH;
  return `'${escapeControls(characters.slice(0, QUOTED_LENGTH).join(''))}${isCut ? '…' : ''}'`;
}

/** Values in quotes. @param count how many there are, if `values` has only the first of them */
export function quotedList(values: readonly string[], count: number = values.length): string {
  const more = count > values.length ? ` and ${count - values.length} more` : '';
  return `${values.map(quoted).join(', ')}${more}`;
}

/** The name of a file or program: unchanged if it is plain, else in quotes. Never cut, because users retype hints. */
export function named(name: string): string {
  const visible = escapeControls(name);
  return name === '' || visible !== name || /[\s'"]/.test(name) ? `'${visible}'` : name;
}

/** Whether all characters are printable ASCII: such text needs no escapes, and each is one column wide. */
export function isPlain(text: string): boolean {
  return /^[\x20-\x7e]*$/.test(text);
}

/** Escapes the characters that end a line, control a terminal or are invisible, so that the text can be read back. */
export function escapeControls(text: string): string {
  if (isPlain(text)) return text;
  return text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (character) => {
    const value = character.codePointAt(0) ?? 0;
    return SHORT[character] ?? (value < 0x100 ? `\\x${hex(value, 2)}` : `\\u{${hex(value, 4)}}`);
  });
}

function hex(value: number, digits: number): string {
  return value.toString(16).padStart(digits, '0');
}
