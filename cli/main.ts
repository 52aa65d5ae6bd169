#!/usr/bin/env node
/**
 * The command line: finds the command, loads only its file, and reports an error as one line and an exit status.
 */
import { type Command, CommanderError } from 'commander';
import { EXIT_CODES, FusetapError } from '../drivers/errors.js';
import { fitHint, longOptionsOf } from './fit-hint.js';
import { ownStatusOf, type SharedOptions } from './options.js';
import { fitHints, reportFailure, watchStreams } from './output.js';
import { addCommands, COMMANDS, makeProgram } from './program.js';
import { usageError } from './usage-error.js';
import { hintForArgument, hintForCommand, hintForOption, translate } from './words-of-other-tools.js';

const COMPLETE = '__complete';

/** exceptions of commander that are not errors */
const WITHOUT_ERROR = new Set(['commander.helpDisplayed', 'commander.version']);

async function main(typed: readonly string[]): Promise<void> {
  watchStreams();
  const program = makeProgram();
  if (typed[0] === COMPLETE) return complete(program, typed.slice(1));
  const argv = translate(typed, Object.keys(COMMANDS));
  program.hook('preAction', (_, command) => {
    fitHints((hint) => fitHint(hint, longOptionsOf(command), Object.keys(COMMANDS)));
  });
  try {
    await addCommands(program, chooseCommands(argv));
    if (argv.length > 0) {
      await program.parseAsync(argv, { from: 'user' });
    } else {
      process.stderr.write(program.helpInformation());
      process.exitCode = EXIT_CODES.USAGE;
    }
  } catch (error) {
    process.exitCode = conclude(error, argv, program.opts<SharedOptions>());
  }
}

/** The answer for the scripts of `fusetap completion`. No help text lists this command, because only scripts use it. */
async function complete(program: Command, args: readonly string[]): Promise<void> {
  const { printCompletion, wordsOf } = await import('./completion/complete.js');
  const words = wordsOf(args);
  await addCommands(program, chooseCommands(words.slice(0, -1)));
  await printCompletion(program, words);
}

/** The commands that the arguments name, usually one; all commands if they name none, for the help of the program. */
function chooseCommands(argv: readonly string[]): string[] {
  const all = Object.keys(COMMANDS);
  // after `--` come the arguments of another program
  const end = argv.indexOf('--');
  const words = new Set(end > 0 ? argv.slice(0, end) : argv);
  const named = all.filter((name) => words.has(name));
  return named.length > 0 ? named : all;
}

/** @returns the exit status */
function conclude(error: unknown, argv: readonly string[], options: SharedOptions): number {
  if (!(error instanceof CommanderError)) return reportFailure(error, options);
  if (WITHOUT_ERROR.has(error.code)) return 0;
  const status = reportFailure(wrongArguments(error, argv), options);
  return ownStatusOf(error) ?? status;
}

function wrongArguments(error: CommanderError, argv: readonly string[]): FusetapError {
  const command = argv.find((word) => Object.hasOwn(COMMANDS, word)) ?? '';
  const help = `see fusetap ${command === '' ? '' : `${command} `}--help`;
  if (error.code === 'commander.help') return new FusetapError('USAGE', 'no command', { hint: help });
  return usageError(error, help, knownHint(error, command, argv));
}

/** The hint for words of other tools. */
function knownHint({ code, message }: CommanderError, command: string, argv: readonly string[]): string | undefined {
  const [, word = ''] = /'([^']*)'/.exec(message) ?? [];
  switch (code) {
    case 'commander.unknownCommand':
      return hintForCommand(word);
    case 'commander.unknownOption':
      return hintForOption(command, word);
    case 'commander.excessArguments':
      return hintForArgument(
        command,
        argv.slice(argv.indexOf(command) + 1).find((each) => !each.startsWith('-')) ?? '',
      );
    default:
      return undefined;
  }
}

await main(process.argv.slice(2));
