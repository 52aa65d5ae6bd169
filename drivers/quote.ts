/** Names of files and programs inside messages, which are one line whatever the names hold. */

/** The name as it is where it is plain, else in quotes with escapes. */
export function quote(name: string): string {
  return name === '' || /[\p{Cc}\p{Cf}\s"]/u.test(name)
    ? JSON.stringify(name).replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, escape16)
    : name;
}

// what JSON leaves as it is, but a terminal may not
const escape16 = (character: string): string =>
  `\\u${(character.codePointAt(0) as number).toString(16).padStart(4, '0')}`;
