/**
 * The server process begins: its first thread starts at once, and loads while the rest of the code (serve.ts) does.
 */
import '../runtime/own-process.js';
import './beginning.js';

// without `await`: serve.js imports beginning.js, which a bundler may put into this file
import('./serve.js').catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
