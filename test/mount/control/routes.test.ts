/** The requests that the control interface accepts, and the messages for wrong requests. */
import t from 'tap';
import * as v from 'valibot';
import { ROUTES } from '../../../mount/control/routes.js';

const attachRequest = ROUTES.attach.body;

const issueOf = (schema: v.GenericSchema, value: unknown): string => {
  const { success, issues } = v.safeParse(schema, value, { abortEarly: true });
  return success ? 'right' : `${v.getDotPath(issues[0]) ?? ''}: ${issues[0].message}`;
};

t.test('a right request is returned, with its defaults', async (t) => {
  t.strictSame(v.parse(attachRequest, { driver: 'aio', image: '/a.img' }), {
    ...{ driver: 'aio', image: '/a.img', vdev: null, mode: 'w', passthrough: 'auto', options: {} },
  });
  const full = {
    ...{ driver: 'ram', image: null, vdev: 'xvda', mode: 'w!', passthrough: 'on', options: { a: 'b' }, share: 'x' },
    ...{ filters: [{ name: 'delay', value: '1' }], partitions: true, uid: 0, gid: 4294967294, fileMode: '0640' },
    ...{ transport: 'kernel', allowOther: false },
  };
  t.strictSame(v.parse(attachRequest, full), full);
});

t.test('the message names the wrong key', async (t) => {
  const right = { driver: 'aio', image: '/a.img' };
  const wrong: [object, RegExp][] = [
    [{ ...right, driver: '' }, /^driver: must have at least 1 character$/],
    [{ ...right, driver: 'x'.repeat(4097) }, /^driver: must have at most 4096 characters$/],
    [{ ...right, driver: 1 }, /^driver: must be a string$/],
    [{ ...right, image: 'a.img' }, /^image: must be an absolute path$/],
    [{ ...right, mode: 'rw' }, /^mode: 'rw' is none of r, w, w!$/],
    [{ ...right, uid: 1.5 }, /^uid: must be an integer$/],
    [{ ...right, uid: -1 }, /^uid: must be at least 0$/],
    [{ ...right, uid: 2 ** 32 - 1 }, /^uid: must be at most 4294967294$/],
    [{ ...right, fileMode: '0888' }, /^fileMode: must be three octal digits/],
    [{ ...right, options: { a: 1 } }, /^options\.a: must be a string$/],
    [{ ...right, filters: [{ name: 'f' }, {}] }, /^filters\.1\.name: /],
    [{ ...right, more: 1 }, /^more: /],
    [JSON.parse('{"__proto__":{},"driver":"aio","image":null}') as object, /^__proto__: /],
  ];
  for (const [request, said] of wrong) t.match(issueOf(attachRequest, request), said);
  for (const request of [null, [], 'x']) t.not(issueOf(attachRequest, request), 'right', JSON.stringify(request));
});

t.test('numbers of a query are text', async (t) => {
  const { detach, pause } = ROUTES;
  t.strictSame(v.parse(detach.query, {}), { force: false, waitMs: 0 });
  t.strictSame(v.parse(detach.query, { force: '1', wait: '1.5' }), { force: true, waitMs: 1500 });
  for (const wait of ['', ' ', 'x', 'Infinity', '-1', '1e9', '1000001', 5]) {
    t.not(issueOf(detach.query, { wait }), 'right', `${wait}`);
  }
  t.strictSame(v.parse(pause.query, { copy: '1:2:3', other: 'x' }), { copy: '1:2:3' });
  t.not(issueOf(pause.query, { copy: 'x' }), 'right');
});

t.test('seconds become milliseconds; the default is 0', async (t) => {
  const { body } = ROUTES.stop;
  t.strictSame(v.parse(body, {}), { force: false, waitMs: 0 });
  t.strictSame(v.parse(body, { force: true, wait: 1.5 }), { force: true, waitMs: 1500 });
  t.match(issueOf(body, { wait: -1 }), /^wait: must be at least 0$/);
});

t.test('the name of a share is checked last', async (t) => {
  const right = { driver: 'ram', image: '/a.img' };
  t.match(v.parse(attachRequest, { ...right, share: 'golden' }), { share: 'golden' });
  t.throws(() => v.parse(attachRequest, { ...right, share: 'a b' }), {
    name: 'FusetapError',
    code: 'USAGE',
    message: "not a name to share a ram image under: 'a b'",
  });
  t.match(issueOf(attachRequest, { ...right, share: 'a b', uid: -1 }), /^uid: must be at least 0$/);
});
