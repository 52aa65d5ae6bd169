/** Names of images in Ceph: every form that QEMU and `rbd` know, and nothing else. */
import fc from 'fast-check';
import t from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import rbd from '../../../drivers/rbd/index.js';
import { parseOptions } from '../../../drivers/rbd/options.js';
import { imageName, parseRbdUri, printRbdUri, type RbdAddress, rbdUris } from '../../../drivers/rbd/uri.js';
import { driverOfUri } from '../../../drivers/remote-uris.js';

const PLAIN: RbdAddress = {
  ...{ pool: 'rbd', namespace: '', image: 'disk', snapshot: null },
  ...{ id: 'admin', conf: null, keyring: null, monitors: null },
};

const GOOD: readonly (readonly [text: string, address: Partial<RbdAddress>, canonical: string])[] = [
  ['rbd:disk', {}, 'rbd:rbd/disk'],
  ['rbd:p/disk', { pool: 'p' }, 'rbd:p/disk'],
  ['rbd:p/n/disk@s', { pool: 'p', namespace: 'n', snapshot: 's' }, 'rbd:p/n/disk@s'],
  ['rbd:p/disk@s:id=tap:conf=/c', { pool: 'p', snapshot: 's', id: 'tap', conf: '/c' }, 'rbd:p/disk@s:id=tap:conf=/c'],
  ['rbd:disk:id=admin', {}, 'rbd:rbd/disk'],
  ['rbd:disk:keyring=/k', { keyring: '/k' }, 'rbd:rbd/disk:keyring=/k'],
  ['rbd:a\\:b\\@c\\/d', { image: 'a:b@c/d' }, 'rbd:rbd/a\\:b\\@c\\/d'],
  ['rbd:a\\\\', { image: 'a\\' }, 'rbd:rbd/a\\\\'],
  ['rbd:disk@a\\@b', { snapshot: 'a@b' }, 'rbd:rbd/disk@a\\@b'],
  ['rbd:disk:conf=/a\\:b=c', { conf: '/a:b=c' }, 'rbd:rbd/disk:conf=/a\\:b=c'],
  ['rbd:disk:mon_host=h\\:6789', { monitors: 'h:6789' }, 'rbd:rbd/disk:mon_host=h\\:6789'],
  ['rbd:Fotos 2026,x', { image: 'Fotos 2026,x' }, 'rbd:rbd/Fotos 2026,x'],
];

const BAD: readonly (readonly [text: string, why: RegExp])[] = [
  ['rbd:', /the image has no name/],
  ['rbd:p/', /the image has no name/],
  ['rbd:p//disk', /the namespace has no name/],
  ['rbd:/disk', /the pool has no name/],
  ['rbd:disk@', /the snapshot has no name/],
  ['rbd:a/b/c/d', /too many slashes/],
  ['rbd:disk@a@b', /several snapshots/],
  ['rbd:disk\\', /ends with a backslash/],
  ['rbd:disk:conf=', /conf has no value/],
  ['rbd:disk:conf', /conf has no value/],
  ['rbd:disk:id=a:id=b', /id is given twice/],
  ['rbd:disk:id=a b', /no user of Ceph/],
  ['rbd:disk:key=AQBSECRET', /has a key, which others could see/],
  ['rbd:disk:rbd_cache=true', /no parameter 'rbd_cache'/],
  ['rbd:disk:', /no parameter ''/],
  ['rbd:a\nb', /control character/],
  ['rbd:a\0b', /control character/],
  [`rbd:${'x'.repeat(1025)}`, /name of the image is too long/],
  [`rbd:${'x'.repeat(5000)}`, /is too long/],
  ['nbd:disk', /no name of an image in Ceph/],
];

t.test('each form is understood, and has one canonical form', async (t) => {
  for (const [text, address, canonical] of GOOD) {
    t.same(parseRbdUri(text), { ...PLAIN, ...address }, text);
    t.equal(printRbdUri(parseRbdUri(text)), canonical, text);
    t.equal(driverOfUri(text), 'rbd', text);
  }
});

t.test('what is wrong is said, and no key is shown', async (t) => {
  for (const [text, message] of BAD) t.throws(() => parseRbdUri(text), { code: 'USAGE', message }, text);
  t.throws(() => parseRbdUri('rbd:disk:key=AQBSECRET'), { message: /^'rbd:disk:key=…': / });
  const others = [
    'rbd:disk:conf=:key=AQBSECRET',
    'rbd:a/b/c/d:key=AQBSECRET',
    'rbd:disk:key=AQBSECRET\\',
    'rbd:d:Key=AQBSECRET',
  ];
  for (const text of others) {
    t.throws(() => parseRbdUri(text), { code: 'USAGE', message: /^(?!.*SECRET)/s }, `whatever else is wrong: ${text}`);
  }
});

t.test('any text is an address, which prints and parses, or an error of its user', async (t) => {
  const characters = fc.constantFrom(...'ab/@:=\\ ,é\0\n', 'id', 'conf', '..');
  const texts = fc.array(characters, { maxLength: 24 }).map((words) => `rbd:${words.join('')}`);
  fc.assert(
    fc.property(texts, (text) => {
      let address: RbdAddress;
      try {
        address = parseRbdUri(text);
      } catch (error) {
        return error instanceof FusetapError && error.code === 'USAGE';
      }
      const printed = printRbdUri(address);
      t.same(parseRbdUri(printed), address);
      return printRbdUri(parseRbdUri(printed)) === printed;
    }),
    { numRuns: 2000 },
  );
});

t.test('messages have the name of the image only', async (t) => {
  t.equal(imageName(parseRbdUri('rbd:p/n/disk@s:id=tap:conf=/c:keyring=/k')), 'p/n/disk@s');
});

t.test('paths become absolute', async (t) => {
  const uri = rbdUris.canonical('rbd:disk:conf=c:keyring=k', (path) => `/here/${path}`);
  t.equal(uri, 'rbd:rbd/disk:conf=/here/c:keyring=/here/k');
});

t.test('an image is the same one, whether its ceph.conf is named or found', async (t) => {
  const uri = 'rbd:p/disk';
  const found = await rbd.claims({ uri });
  t.equal(await rbd.claims({ uri, conf: '/etc/ceph/ceph.conf' }), found);
  t.equal(await rbd.claims({ uri: `${uri}:id=tap` }), found, 'and by another user');
  t.not(await rbd.claims({ uri: `${uri}:mon_host=h` }), found);
});

t.test('options say the same as the URI, or what it leaves open', async (t) => {
  const uri = 'rbd:p/disk';
  t.match(parseOptions({ uri, id: 'tap', conf: '/c', keyring: '/k' }), { id: 'tap', conf: '/c', keyring: '/k' });
  t.match(parseOptions({ uri: `${uri}:id=tap`, id: 'tap' }), { id: 'tap' });
  const wrong: readonly (readonly [Record<string, string>, RegExp])[] = [
    [{}, /no image is named/],
    [{ uri: 'nbd://h/d' }, /no name of an image in Ceph/],
    [{ uri, conf: 'relative' }, /'relative' is not absolute/],
    [{ uri: `${uri}:conf=relative` }, /'relative' is not absolute/],
    [{ uri: `${uri}:id=a`, id: 'b' }, /id is 'a' and 'b'/],
    [{ uri: `${uri}:id=admin`, id: 'b' }, /id is 'admin' and 'b'/],
    [{ uri: `${uri}:keyring=/a\\:id=b:id=admin`, id: 'b' }, /id is 'admin' and 'b'/],
    [{ uri, id: '' }, /id has no value/],
    [{ uri, id: 'a b' }, /no user of Ceph/],
    [{ uri, key: 'secret' }, /has no option 'key'/],
    [{ uri, conf: '/a\0b' }, /is not absolute/],
  ];
  for (const [options, message] of wrong) t.throws(() => parseOptions(options), { code: 'USAGE', message });
});
