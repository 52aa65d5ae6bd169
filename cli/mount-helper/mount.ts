#!/usr/bin/env node
/** /sbin/mount.fusetap: mount(8) runs it for a file system of type fusetap. */
import { reportFailure } from '../output.js';
import { mountWords } from './words.js';

try {
  const words = mountWords(process.argv.slice(2));
  // null: mount(8) only simulates (-f)
  if (words !== null) {
    process.argv.splice(2, process.argv.length, ...words);
    await import('../main.js');
  }
} catch (error) {
  process.exitCode = reportFailure(error, {});
}
