import fc from 'fast-check';
import t from 'tap';
import { escapeControls, named, quoted, quotedList } from '../../drivers/quote.js';

t.test('no text can end its line or command a terminal', async (t) => {
  t.equal(
    escapeControls('a\nb\t\x1b[31m\x9b\u202e\u2028\ud800é'),
    'a\\nb\\t\\x1b[31m\\x9b\\u{202e}\\u{2028}\\u{d800}é',
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      for (const shown of [escapeControls(text), quoted(text), named(text)]) {
        t.notMatch(shown, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
      }
    }),
  );
});

t.test('a value is in quotes, and cut where it is long', async (t) => {
  t.equal(quoted(''), "''");
  t.equal(quoted('a b'), "'a b'");
  t.equal(quoted('a\0b'), "'a\\x00b'");
  t.equal(quoted('x'.repeat(80)), `'${'x'.repeat(80)}'`);
  t.equal(quoted('💾'.repeat(1e6)), `'${'💾'.repeat(80)}…'`, 'between characters');
});

t.test('a name is in quotes only where it is odd, and never cut', async (t) => {
  const long = `/${'x'.repeat(4000)}`;
  for (const name of ['/srv/disk.img', 'xvda', '/img/é', '/img/a,b:c', long]) t.equal(named(name), name);
  t.equal(named(''), "''");
  t.equal(named('/img/a b'), "'/img/a b'");
  t.equal(named('/img/a\nb'), "'/img/a\\nb'");
});

t.test('a list has the first values, and the count of the others', async (t) => {
  t.equal(quotedList(['a', 'b c']), "'a', 'b c'");
  t.equal(quotedList(['a', 'b'], 5), "'a', 'b' and 3 more");
  t.equal(quotedList([]), '');
});
