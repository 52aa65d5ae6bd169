/** The environment of a program of ours, with and without the authorities that Node would read at its start. */
import t from 'tap';
import { withoutExtraCertificates } from '../../system/extra-certificates.js';

t.test('Node 20 does not get the variable, later versions do', (t) => {
  const env = { NODE_EXTRA_CA_CERTS: '/ca.pem', PATH: '/bin' };
  t.strictSame(withoutExtraCertificates(env, '20.20.2'), { FUSETAP_EXTRA_CA_CERTS: '/ca.pem', PATH: '/bin' });
  t.strictSame(withoutExtraCertificates(env, '22.2.0'), env);
  t.strictSame(withoutExtraCertificates({ PATH: '/bin' }, '20.20.2'), { PATH: '/bin' });
  const inherited = { FUSETAP_EXTRA_CA_CERTS: '/ca.pem' };
  t.strictSame(withoutExtraCertificates(inherited, '20.20.2'), inherited, 'the environment of a keeper');
  t.end();
});
