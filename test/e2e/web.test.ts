/** `fusetap web` over HTTP: what it answers to whom, and how it ends. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import t from 'tap';
import { KERNEL, startBus } from '../survival/bus.js';
import { collect } from './command.js';
import { openBench, whyNot } from './fixtures.js';
import { ask, startWeb } from './web-server.js';

t.setTimeout(180_000);

t.test('it answers only to those who have its secret, and to its own page', { skip: whyNot() }, async (t) => {
  const { bench } = await startBus(t);
  await bench.attach(await bench.image('disk.img', 1 << 20));
  const { url } = await startWeb(t, bench);
  t.match(url, /^http:\/\/127\.0\.0\.1:\d+\/[\w-]{32}\/$/);
  const { origin, host } = new URL(url);
  const paths = ['', 'page.css', 'page.js', 'icon.svg', 'tree?bus=0&vdev=xvda', 'map.svg?bus=0&vdev=xvda'];
  for (const path of paths) {
    const { status, headers, text } = await ask(`${url}${path}`);
    t.equal(status, 200, path);
    t.match(headers, {
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
      'content-security-policy': /^default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'/,
    });
    t.notMatch(text, /https?:(?!\/\/www\.w3\.org\/)/, 'nothing from elsewhere');
    t.equal((await ask(`${origin}/${path}`)).status, 403, 'without the secret');
    t.equal((await ask(`${origin}/${'x'.repeat(32)}/${path}`)).status, 403, 'with another secret');
    t.equal((await ask(`${url}${path}`, { Host: 'evil.example' })).status, 403, 'with another Host');
    t.equal((await ask(`${url}${path}`, { Origin: 'http://evil.example' })).status, 403, 'from another page');
    t.equal((await ask(`${url}${path}`, { 'Sec-Fetch-Site': 'cross-site' })).status, 403, 'from another site');
    t.equal((await ask(`${url}${path}`, { Host: host, Origin: origin })).status, 200, 'from its own page');
    t.equal((await ask(`${url}${path}`, {}, 'POST')).status, 405, 'it only reads');
  }
  t.equal((await ask(`${url}stream`, { Origin: 'null' })).status, 403, 'the stream, too');
  t.match(await ask(`${url}../etc/passwd`), { status: 403 });
  t.match(await ask(`${url}no-such`), { status: 404 });
  t.match(await ask(`${url}tree?bus=0&vdev=xvdz`), { status: 404, text: 'there is no xvdz on bus 0 any more\n' });
  t.match(await ask(`${url}tree?bus=/etc&vdev=xvda`), { status: 400 });
  t.match(await ask(`${url}tree`), { status: 400 });
  t.match((await ask(`${url}tree?bus=0&vdev=xvda`)).text, 'xvda, 1M, mode w, aio:');
});

t.test('where it listens', { skip: whyNot() }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const other = createServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  t.teardown(() => other.close());
  const { port } = other.address() as { port: number };
  const denied = await bench.fusetap(['web', '--listen', '0.0.0.0:0']);
  t.match(denied, { status: 5, stdout: '', stderr: /0\.0\.0\.0.*--allow-remote/ });
  const busy = await bench.fusetap(['web', '--listen', `${port}`]);
  t.match(busy, { status: 4, stdout: '', stderr: new RegExp(`another program listens on 127.0.0.1 port ${port}`) });
  t.match(await bench.fusetap(['web', '--listen', 'example.org:80']), { status: 2, stdout: '' });
  t.match(await bench.fusetap(['web', '--listen', '192.0.2.1:0', '--allow-remote']), {
    status: 2,
    stderr: /no address/,
  });
  const { url } = await startWeb(t, bench, '--listen', '0.0.0.0:0', '--allow-remote');
  const { port: used, pathname } = new URL(url);
  t.equal((await ask(`http://127.0.0.1:${used}${pathname}`)).status, 200);
  t.equal((await ask(`http://127.0.0.1:${used}${pathname}`, { Host: 'a-name' })).status, 403);
});

t.test('how it ends', { skip: whyNot() }, async (t) => {
  const { bench } = await startBus(t);
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    const { child, url } = await startWeb(t, bench);
    // a client that stays connected does not keep it
    const stream = ask(`${url}stream`).catch((error: Error) => error);
    await ask(url);
    const outcome = collect(child);
    child.kill(signal);
    t.match(await outcome, { status: 0, signal: null, stderr: '' }, signal);
    await stream;
  }
  const script = '"$1" "$2" web | { read -r url; echo "$url"; }';
  t.match(await bench.sh(script, process.execPath, bench.program), /^http:/, 'the reader of its output has left');
  const json = bench.startFusetap(['web', '--json', '--listen', '[::1]:0']);
  const text = once(json.stdout?.setEncoding('utf8') as NodeJS.ReadableStream, 'data');
  t.match(JSON.parse(String((await text)[0])), { url: /^http:\/\/\[::1\]:\d+\// });
  const outcome = collect(json);
  json.kill('SIGTERM');
  t.match(await outcome, { status: 0 });
});
