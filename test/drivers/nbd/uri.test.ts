/** Names of exports: URIs, QEMU's older words, what is refused; printing is canonical. */
import t from 'tap';
import { isNbdUri, parseNbdUri, printNbdUri, resolveNbdPaths } from '../../../drivers/nbd/uri.js';

const PLAIN = { host: null, port: 10_809, socket: null, exportName: '', tls: null };
const TLS = { user: null, certificates: null, pskFile: null, hostname: null, verifiesPeer: true };

const GOOD: Record<string, [object, string]> = {
  'nbd://h/disk': [{ host: 'h', exportName: 'disk' }, 'nbd://h/disk'],
  'nbd://H:10809/': [{ host: 'h' }, 'nbd://h/'],
  'nbd://h': [{ host: 'h' }, 'nbd://h/'],
  'nbd://[::1]:99//a b': [{ host: '::1', port: 99, exportName: '/a b' }, 'nbd://[::1]:99//a%20b'],
  'nbd://10.0.0.1/a%2Cb?': [{ host: '10.0.0.1', exportName: 'a,b' }, 'nbd://10.0.0.1/a%2Cb'],
  'nbd+unix:///e?socket=/a b': [{ socket: '/a b', exportName: 'e' }, 'nbd+unix:///e?socket=/a%20b'],
  'nbd+unix://?socket=%00x': [{ socket: '\0x' }, 'nbd+unix:///?socket=%00x'],
  'nbd:unix:/s': [{ socket: '/s' }, 'nbd+unix:///?socket=/s'],
  'nbd:unix:/a:b:exportname=c:d': [{ socket: '/a:b', exportName: 'c:d' }, 'nbd+unix:///c:d?socket=/a:b'],
  'nbd:h:1:exportname=/x': [{ host: 'h', port: 1, exportName: '/x' }, 'nbd://h:1//x'],
  'nbd:[::1]:2': [{ host: '::1', port: 2 }, 'nbd://[::1]:2/'],
  'nbds://u@h/d?tls-psk-file=/k': [
    { host: 'h', exportName: 'd', tls: { ...TLS, user: 'u', pskFile: '/k' } },
    'nbds://u@h/d?tls-psk-file=/k',
  ],
  'nbds+unix:///?socket=/s&tls-certificates=/c&tls-hostname=n&tls-verify-peer=0': [
    { socket: '/s', tls: { ...TLS, certificates: '/c', hostname: 'n', verifiesPeer: false } },
    'nbds+unix:///?socket=/s&tls-certificates=/c&tls-hostname=n&tls-verify-peer=0',
  ],
};

t.test('each name has one address and one URI', async (t) => {
  for (const [text, [address, uri]] of Object.entries(GOOD)) {
    t.ok(isNbdUri(text), text);
    t.same(parseNbdUri(text), { ...PLAIN, ...address }, text);
    t.equal(printNbdUri(parseNbdUri(text)), uri);
    t.same(parseNbdUri(uri), parseNbdUri(text), 'which means the same');
    t.notOk(uri.includes(','), 'and has no comma');
  }
});

const BAD: Record<string, RegExp> = {
  'nbd:': /not a name of an export/,
  'nbd:h': /not a name of an export/,
  'nbd:///x': /no host/,
  'nbd://h:0/': /no port 0/,
  'nbd://h:70000/': /no port 70000/,
  'nbd://u:p@h/': /password/,
  'nbd://u@h/': /encrypted connections/,
  'nbd://h/?tls-psk-file=/k': /encrypted connections/,
  'nbd://h/?socket=/s': /a host and a socket/,
  'nbd+unix://h/?socket=/s': /a host and a socket/,
  'nbd+unix:///x': /no socket/,
  'nbd+unix:///?socket=': /no value/,
  'nbd://h/?x-more=1': /no parameter 'x-more/,
  'nbd://h/?socket=/a&socket=/b': /given twice/,
  'nbd://h/%zz': /percent-encoded/,
  'nbd://h/%00': /zero byte/,
  'nbd://h h/': /not a host/,
  'nbds://h/?tls-psk-file=/k&tls-certificates=/c': /certificates and a pre-shared key/,
  'nbds://h/?tls-verify-peer=maybe': /tls-verify-peer/,
  [`nbd://h/${'x'.repeat(4097)}`]: /too long/,
  [`nbd+unix:///?socket=/${'x'.repeat(107)}`]: /too long/,
};

t.test('what is no name is refused', async (t) => {
  for (const [text, message] of Object.entries(BAD)) {
    t.throws(() => parseNbdUri(text), { code: 'USAGE', message }, text.slice(0, 60));
  }
});

t.test('paths are made absolute, but abstract sockets', async (t) => {
  const resolve = (path: string): string => `/abs/${path}`;
  t.equal(resolveNbdPaths(parseNbdUri('nbd:unix:s'), resolve).socket, '/abs/s');
  t.equal(resolveNbdPaths(parseNbdUri('nbd+unix:///?socket=%00s'), resolve).socket, '\0s');
  t.equal(resolveNbdPaths(parseNbdUri('nbds://h/?tls-psk-file=k'), resolve).tls?.pskFile, '/abs/k');
});
