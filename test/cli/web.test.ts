/** What the server of the page lets in, and where it listens. */
import t from 'tap';
import { Guard } from '../../cli/web/guard.js';
import { parseListen } from '../../cli/web/listen-address.js';

t.test('where to listen', (t) => {
  const accepted: Record<string, { host: string; port: number }> = {
    '127.0.0.1:8000': { host: '127.0.0.1', port: 8000 },
    '127.9.9.9:1': { host: '127.9.9.9', port: 1 },
    'localhost:8000': { host: '127.0.0.1', port: 8000 },
    '[::1]:0': { host: '::1', port: 0 },
    '8000': { host: '127.0.0.1', port: 8000 },
  };
  for (const [word, address] of Object.entries(accepted)) {
    t.match(parseListen(word, false), address, word);
  }
  for (const word of [
    '',
    ':80',
    'host:80',
    '127.0.0.1',
    '1.2.3:80',
    '127.0.0.1:65536',
    '::1:80',
    '[127.0.0.1]:80',
    '-1',
    '80 ',
  ]) {
    t.throws(() => parseListen(word, true), { code: 'USAGE', message: /--listen/ }, JSON.stringify(word));
  }
  for (const word of ['0.0.0.0:80', '192.0.2.1:80', '[::]:80', '[2001:db8::1]:80', '[::ffff:127.0.0.1]:80']) {
    t.throws(() => parseListen(word, false), { code: 'DENIED', hint: /--allow-remote/ }, word);
    t.match(parseListen(word, true), { isLoopback: false, port: 80 }, word);
  }
  t.end();
});

const ASKED = { host: '127.0.0.1:8000', origin: undefined, site: undefined };

t.test('the secret', (t) => {
  const guard = new Guard(true);
  t.match(guard.secret, /^[\w-]{32}$/, '192 bits');
  t.not(guard.secret, new Guard(true).secret);
  const judge = (url: string) => guard.judge({ ...ASKED, url });
  const target = (url: string) => {
    const judged = judge(url);
    return 'target' in judged ? `${judged.target.pathname}${judged.target.search}` : null;
  };
  t.equal(target(`/${guard.secret}/`), '/');
  t.equal(target(`/${guard.secret}`), '/');
  t.equal(target(`/${guard.secret}/tree?bus=0&vdev=xvda`), '/tree?bus=0&vdev=xvda');
  t.equal(target(`/${guard.secret}//other/../page.js`), '/page.js', 'never another host');
  const half = guard.secret.slice(0, 16);
  for (const url of [
    '/',
    '',
    '*',
    '//',
    `/${half}/`,
    `/${guard.secret}x/`,
    `/x/${guard.secret}/`,
    `/?${guard.secret}`,
  ]) {
    t.match(judge(url), { refused: /secret/ }, url);
  }
  t.match(judge(`http://127.0.0.1:8000/${guard.secret}/`), { refused: /secret/ });
  t.end();
});

t.test('Host, Origin and fetch metadata', (t) => {
  const [local, remote] = [new Guard(true), new Guard(false)];
  const isLetIn = (guard: Guard, more: object) =>
    'target' in guard.judge({ ...ASKED, ...more, url: `/${guard.secret}/` });
  for (const host of ['127.0.0.1:8000', '127.0.0.1', 'localhost:9', 'LOCALHOST:9', '[::1]:8000', '127.1.2.3:80']) {
    t.ok(isLetIn(local, { host }), host);
  }
  const foreign = [
    'evil.example:8000',
    '127.0.0.1.evil.example',
    'localhost.evil.example',
    '',
    '127.0.0.1:8000:1',
    'a b',
  ];
  for (const host of [...foreign, '[::1', '[127.0.0.1]:8000', undefined]) {
    t.notOk(isLetIn(local, { host }), `${host}`);
    t.notOk(isLetIn(remote, { host }), `${host}, remote`);
  }
  t.notOk(isLetIn(local, { host: '192.0.2.1:8000' }), 'only loopback');
  t.ok(isLetIn(remote, { host: '192.0.2.1:8000' }), 'an address is no name');
  t.ok(isLetIn(local, { origin: 'http://127.0.0.1:8000' }));
  for (const origin of ['http://evil.example', 'null', 'https://127.0.0.1:8000', 'http://127.0.0.1:8001', '']) {
    t.notOk(isLetIn(local, { origin }), origin);
  }
  for (const site of ['same-origin', 'none']) t.ok(isLetIn(local, { site }), site);
  for (const site of ['same-site', 'cross-site']) t.notOk(isLetIn(local, { site }), site);
  t.end();
});
