import t from 'tap';
import { defined } from '../../drivers/defined.js';

t.test('what is undefined is left out, and nothing else', async (t) => {
  t.same(defined({ a: undefined, b: null, c: 0, d: '', e: false }), { b: null, c: 0, d: '', e: false });
  t.notOk('a' in defined({ a: undefined }));
  t.same(defined({}), {});
});

t.test('its type has the property as optional', async (t) => {
  const word = process.env.NO_SUCH_VARIABLE;
  const made: { word?: string; count: number } = defined({ word, count: 1 });
  t.same(made, { count: 1 });
});
