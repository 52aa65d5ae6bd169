#!/usr/bin/env node
/** /sbin/umount.fusetap: umount(8) runs it for a file system of type fusetap. */
import { reportFailure } from '../output.js';
import { umountWords } from './words.js';

try {
  const words = umountWords(process.argv.slice(2));
  process.argv.splice(2, process.argv.length, ...words);
  await import('../main.js');
} catch (error) {
  process.exitCode = reportFailure(error, {});
}
