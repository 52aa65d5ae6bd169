/** Names are encoded as udev does it: compared with what blkid(8) prints for the same label. */
import fc from 'fast-check';
import t from 'tap';
import { encodeName, linkName } from '../../../mount/transport/by-name.js';

t.test('encodeName', (t) => {
  const cases: [string | number[], string][] = [
    ['plain-1.0:=@_#+', 'plain-1.0:=@_#+'],
    ['a b', 'a\\x20b'],
    ['a/b\\c"\'', 'a\\x2fb\\x5cc\\x22\\x27'],
    ['größe ☃ 😀', 'größe\\x20☃\\x20😀'],
    [[0x01, 0x1b, 0x7f], '\\x01\\x1b\\x7f'],
    [[0xff, 0x41, 0xc3], '\\xffA\\xc3'],
    // too long for its character, a surrogate, no character, beyond Unicode
    [[0xc0, 0xaf], '\\xc0\\xaf'],
    [[0xed, 0xa0, 0x80], '\\xed\\xa0\\x80'],
    [[0xef, 0xb7, 0x90], '\\xef\\xb7\\x90'],
    [[0xef, 0xbf, 0xbf], '\\xef\\xbf\\xbf'],
    [[0xf4, 0x90, 0x80, 0x80], '\\xf4\\x90\\x80\\x80'],
  ];
  for (const [label, encoded] of cases) {
    t.equal(encodeName(typeof label === 'string' ? Buffer.from(label) : Uint8Array.from(label)), encoded);
  }
  t.end();
});

t.test('no bytes give a name that is no name of a file', (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      const name = linkName(encodeName(bytes));
      if (name === null) return true;
      const isShort = Buffer.byteLength(name) <= 255 && name.length > 0;
      return isShort && !/[/\0\s]/.test(name.replace(/[^\0-\x7f]/g, '')) && name !== '.' && name !== '..';
    }),
    { numRuns: 2000 },
  );
  t.equal(linkName('.'), '\\x2e');
  t.equal(linkName('..'), '\\x2e\\x2e');
  t.equal(linkName(''), null);
  t.equal(linkName(encodeName(Buffer.alloc(64, ' '))), null, 'longer than 255 bytes');
  t.end();
});
