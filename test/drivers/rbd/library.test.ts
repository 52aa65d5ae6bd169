/** librbd is optional: what is said if it is not there, or too old. */
import t from 'tap';
import { libraryMissing } from '../../../drivers/rbd/faults.js';
import { loadLibrbd } from '../../../system/librbd.js';

function refusal(names: { rados: string; rbd: string }): Error {
  try {
    loadLibrbd(names);
  } catch (error) {
    return libraryMissing(error);
  }
  throw new Error('it was loaded');
}

t.test('a library that is not installed', async (t) => {
  const rados = 'libfusetap-nothing.so.2';
  t.match(refusal({ rados, rbd: rados }), {
    code: 'UNSUPPORTED',
    message: /^driver rbd: librbd cannot be loaded: .*libfusetap-nothing/,
    hint: /apt install librbd1/,
  });
});

t.test('a library without a function that is needed', async (t) => {
  // as good as a librbd of long ago: it has none of them
  const rados = 'libc.so.6';
  t.match(refusal({ rados, rbd: rados }), {
    code: 'UNSUPPORTED',
    message: /^driver rbd: the installed librbd is too old: it has no rados_create2/,
    hint: /Ceph 15 or later/,
  });
});
