/** What requests are checked with: what passes, and what is said of what does not. */
import t from 'tap';
import * as s from '../../../mount/bus/schema.js';

const schema = s.object({
  name: s
    .string()
    .min(1)
    .max(4)
    .regex(/^[a-z]+$/, 'must be letters'),
  size: s.int().min(0).max(10).optional(),
  mode: s.oneOf(['r', 'w']).default('w').describe('how'),
  share: s.string().nullable(),
  options: s.record(s.string()).default({}),
  filters: s.array(s.object({ name: s.string() })).optional(),
});

const said = (value: unknown): string => {
  const parsed = schema.safeParse(value);
  return parsed.success ? 'right' : `${parsed.issue.path.join('.')}: ${parsed.issue.message}`;
};

t.test('what is right is returned, with what is missing', async (t) => {
  const given = { name: 'a', share: null };
  t.strictSame(schema.safeParse(given), { success: true, data: { ...given, mode: 'w', options: {} } });
  const full = { name: 'abcd', size: 10, mode: 'r', share: 'x', options: { a: 'b' }, filters: [{ name: 'f' }] };
  t.strictSame(schema.safeParse(full), { success: true, data: full });
});

t.test('of what is wrong is said where, and what', async (t) => {
  const right = { name: 'a', share: null };
  t.equal(said(null), ': must be an object');
  t.equal(said([]), ': must be an object');
  t.equal(said({ ...right, more: 1 }), ': has a key that is not known: more');
  t.equal(said({ name: 'a' }), 'share: is missing');
  t.equal(said({ ...right, name: '' }), 'name: must have at least 1 characters');
  t.equal(said({ ...right, name: 'abcde' }), 'name: must have at most 4 characters');
  t.equal(said({ ...right, name: 'A' }), 'name: must be letters');
  t.equal(said({ ...right, size: 1.5 }), 'size: must be an integer');
  t.equal(said({ ...right, size: -1 }), 'size: must be at least 0');
  t.equal(said({ ...right, size: 11 }), 'size: must be at most 10');
  t.equal(said({ ...right, mode: 'x' }), 'mode: must be one of r, w');
  t.equal(said({ ...right, share: 1 }), 'share: must be a string');
  t.equal(said({ ...right, options: { a: 1 } }), 'options.a: must be a string');
  t.equal(said({ ...right, filters: {} }), 'filters: must be an array');
  t.equal(said({ ...right, filters: [{ name: 'f' }, {}] }), 'filters.1.name: is missing');
  t.equal(said(JSON.parse('{"__proto__":{},"name":"a","share":null}')), ': has a key that is not known: __proto__');
});

t.test('numbers of a query are text', async (t) => {
  const query = s.object({ wait: s.numberText().min(0).default(0) }, { ignoresOthers: true });
  t.match(query.safeParse({ wait: '1.5', other: 'x' }), { data: { wait: 1.5 } });
  t.match(query.safeParse({}), { data: { wait: 0 } });
  for (const wait of ['', ' ', 'x', 'Infinity', '-1', 5])
    t.match(query.safeParse({ wait }), { success: false }, `${wait}`);
});

t.test('OpenAPI is told the same', async (t) => {
  t.strictSame(JSON.parse(JSON.stringify(schema.json)), {
    type: 'object',
    properties: {
      name: { type: 'string', minLength: 1, maxLength: 4, pattern: '^[a-z]+$' },
      size: { type: 'integer', minimum: 0, maximum: 10 },
      mode: { description: 'how', default: 'w', type: 'string', enum: ['r', 'w'] },
      share: { type: ['string', 'null'] },
      options: { default: {}, type: 'object', additionalProperties: { type: 'string' } },
      filters: {
        type: 'array',
        items: {
          type: 'object',
          properties: { name: { type: 'string' } },
          required: ['name'],
          additionalProperties: false,
        },
      },
    },
    required: ['name', 'share'],
    additionalProperties: false,
  });
});
