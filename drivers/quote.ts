/** Writes names of files and programs into messages. A message stays one line, whatever characters a name contains. */

/** The name itself if it is plain, else in quotes with escapes. */
export function quote(name: string): string {
  return name === '' || /[\p{Cc}\p{Cf}\s"]/u.test(name)
    ? JSON.stringify(name).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, escape16)
    : name;
}

// JSON does not escape these characters, but a terminal may obey them
const escape16 = (character: string): string =>
  `\\u${(character.codePointAt(0) as number).toString(16).padStart(4, '0')}`;
