#!/usr/bin/env node
/**
 * tap-ctl: tapdisk's commands for fusetap, with tapdisk's output and its exit status, which is the errno of the error.
 * docs/from-tapdisk.md lists the commands, and the differences from tapdisk.
 */
import { errnoOf, FusetapError } from '../../drivers/errors.js';
import { escapeControls, quoted } from '../../drivers/quote.js';
import { VERSION } from '../../mount/version.js';
import { fitHint } from '../fit-hint.js';
import { print, watchStreams } from '../output.js';
import { parseLetters } from './command.js';
import { TAP_COMMANDS } from './commands.js';

const USAGE = `usage: tap-ctl <command> [args]\ncommands: ${Object.keys(TAP_COMMANDS).join(' ')}`;

async function main([word, ...words]: readonly string[]): Promise<void> {
  if (word === undefined) throw new FusetapError('USAGE', 'no command', { hint: USAGE.replaceAll('\n', '; ') });
  if (['help', '--help', '-h'].includes(word)) return print(USAGE);
  if (word === '--version') return print(VERSION);
  const load = Object.hasOwn(TAP_COMMANDS, word) ? TAP_COMMANDS[word] : undefined;
  if (load === undefined) {
    throw new FusetapError('USAGE', `no command ${quoted(word)}`, { hint: USAGE.replaceAll('\n', '; ') });
  }
  const { command } = await load();
  const given = parseLetters(command, words);
  if (given.help === true) print(`usage: ${command.usage}`);
  else await command.run(given);
}

/** Prints one line, and the stack if the error is unexpected. */
function report(error: unknown): void {
  const known = error instanceof FusetapError;
  const message = error instanceof Error ? error.message : String(error);
  // its commands have none of the options that a hint may name
  const hint = known && error.hint ? fitHint(error.hint, [], []) : undefined;
  process.stderr.write(`tap-ctl: ${escapeControls(hint === undefined ? message : `${message}: ${hint}`)}\n`);
  if (!known && error instanceof Error) process.stderr.write(`${error.stack}\n`);
}

watchStreams();
try {
  await main(process.argv.slice(2));
} catch (error) {
  report(error);
  process.exitCode = errnoOf(error);
}
