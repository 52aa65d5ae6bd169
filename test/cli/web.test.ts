/** What the server of the page lets in, and where it listens. */
import t from 'tap';
import { Guard } from '../../cli/web/guard.js';
import { checkListen } from '../../cli/web/listen-address.js';

t.test('where to listen', (t) => {
  const local = { '127.0.0.1': '127.0.0.1', '127.9.9.9': '127.9.9.9', '::1': '::1', localhost: '127.0.0.1' };
  for (const [word, host] of Object.entries(local)) {
    t.same(checkListen({ host: word, port: 80 }, false), { host, port: 80, isLoopback: true }, word);
  }
  for (const host of ['', 'host', '1.2.3', 'localhost.evil.example', '127.0.0.1.evil.example']) {
    t.throws(() => checkListen({ host, port: 80 }, true), { code: 'USAGE', message: /--listen/ }, JSON.stringify(host));
  }
  for (const host of ['0.0.0.0', '192.0.2.1', '::', '2001:db8::1', '::ffff:127.0.0.1']) {
    t.throws(() => checkListen({ host, port: 80 }, false), { code: 'DENIED', hint: /--allow-remote/ }, host);
    t.same(checkListen({ host, port: 80 }, true), { host, port: 80, isLoopback: false }, host);
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
    return 'target' in judged ? `${judged.target.pathname} ${judged.target.searchParams}` : null;
  };
  t.equal(target(`/${guard.secret}/`), '/ ');
  t.equal(target(`/${guard.secret}`), '/ ');
  t.equal(target(`/${guard.secret}/tree?bus=0&vdev=xvda`), '/tree bus=0&vdev=xvda');
  t.equal(target(`/${guard.secret}//other/page.js`), '/other/page.js ', 'never another host');
  t.equal(target(`/${guard.secret}/http://[`), '/http://[ ', 'a path that no URL has');
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
