import t from 'tap';
import nbd from '../../../drivers/nbd/index.js';

t.test('it is refused unless the user has asked for it, and says where its faults are', async (t) => {
  const { FUSETAP_EXPERIMENTAL: before } = process.env;
  t.teardown(() => {
    process.env.FUSETAP_EXPERIMENTAL = before;
  });
  const options = { uri: 'nbd://localhost/x' };
  delete process.env.FUSETAP_EXPERIMENTAL;
  t.throws(() => nbd.check(options), { code: 'UNSUPPORTED', hint: /FUSETAP_EXPERIMENTAL=nbd/ });
  process.env.FUSETAP_EXPERIMENTAL = 'another';
  t.throws(() => nbd.check(options), { code: 'UNSUPPORTED' });
  process.env.FUSETAP_EXPERIMENTAL = 'another,nbd';
  t.doesNotThrow(() => nbd.check(options));
  t.throws(() => nbd.check({ uri: 'no uri' }), { code: 'USAGE' }, 'what is wrong in any case comes first');
});
