/** Splits a shell's line into words. Needed for bash, which splits words at `:` and `=` before completion gets them. */

/** The words up to the end of the line, without quotes; the last one may be empty, or its quotes still open. */
export function splitLine(line: string): string[] {
  const words: string[] = [];
  let word: string | null = null;
  const pieces = /\\(.)|'([^']*)(?:'|$)|"((?:\\.|[^"\\])*)(?:"|$)|([ \t\n]+)|([^\\'" \t\n]+|\\$)/gs;
  for (const [, escaped, single, double, blanks, bare] of line.matchAll(pieces)) {
    if (blanks === undefined)
      word = (word ?? '') + (escaped ?? single ?? double?.replace(/\\(["\\$`])/g, '$1') ?? bare ?? '');
    else {
      if (word !== null) words.push(word);
      word = null;
    }
  }
  return [...words, word ?? ''];
}
