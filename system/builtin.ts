/**
 * Modules of Node that most commands never need. An import loads them at the start, which costs a command a tenth of
 * its time; this loads them at the first use, and unlike `import()` at once.
 */
import { createRequire } from 'node:module';

const load = createRequire(import.meta.url);

export const builtin = {
  get childProcess(): typeof import('node:child_process') {
    return load('node:child_process') as typeof import('node:child_process');
  },
  get crypto(): typeof import('node:crypto') {
    return load('node:crypto') as typeof import('node:crypto');
  },
  get tls(): typeof import('node:tls') {
    return load('node:tls') as typeof import('node:tls');
  },
};
