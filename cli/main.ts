#!/usr/bin/env node
/**
 * The command line: finds the command, loads only its file, and turns what goes wrong into one line and an exit status.
 */
import { Command, CommanderError } from 'commander';
import { EXIT_CODES, FusetapError } from '../drivers/errors.js';
import { VERSION } from '../mount/version.js';
import { addSharedOptions, RUN_FAILED, type SharedOptions } from './options.js';
import { reportFailure, watchStreams } from './output.js';

/** A command's file adds it to the program. */
interface CommandFile {
  register(program: Command): void;
}

/** The commands, in the order of the help: one line each. */
const COMMANDS: Record<string, () => Promise<CommandFile>> = {
  attach: () => import('./commands/attach.js'),
  detach: () => import('./commands/detach.js'),
  ls: () => import('./commands/ls.js'),
  start: () => import('./commands/start.js'),
  stop: () => import('./commands/stop.js'),
  run: () => import('./commands/run.js'),
};

/** commander's ends that are no errors */
const PEACEFUL = new Set(['commander.helpDisplayed', 'commander.version']);

async function main(argv: readonly string[]): Promise<void> {
  watchStreams();
  const program = makeProgram();
  try {
    const files = await Promise.all(chooseCommands(argv).map((name) => COMMANDS[name]?.()));
    for (const file of files) file?.register(program);
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

function makeProgram(): Command {
  const program = new Command('fusetap')
    .description('Attaches disk images as files, in userspace.')
    .usage('[options] COMMAND')
    .version(VERSION, '--version', 'the version')
    .helpOption('-h, --help', 'this help')
    .helpCommand(false)
    .configureHelp({ showGlobalOptions: true })
    // its own words would be a second line
    .configureOutput({ writeErr: () => {} })
    .exitOverride();
  addSharedOptions(program);
  return program;
}

/** The commands that the words name: most often one; for the help of the program, all. */
function chooseCommands(argv: readonly string[]): string[] {
  const all = Object.keys(COMMANDS);
  const named = all.filter((name) => argv.includes(name));
  return named.length > 0 ? named : all;
}

/** @returns the exit status */
function conclude(error: unknown, argv: readonly string[], options: SharedOptions): number {
  if (!(error instanceof CommanderError)) return reportFailure(error, options);
  if (PEACEFUL.has(error.code)) return 0;
  const status = reportFailure(usageError(error, argv), options);
  // of `fusetap run`: it must not look like the status of what was run
  return error.exitCode === RUN_FAILED ? RUN_FAILED : status;
}

/** commander's `error: …`, perhaps with `(Did you mean …?)` in a second line */
function usageError(error: CommanderError, argv: readonly string[]): FusetapError {
  const command = argv.find((word) => Object.hasOwn(COMMANDS, word));
  const help = `see fusetap ${command === undefined ? '' : `${command} `}--help`;
  if (error.code === 'commander.help') return new FusetapError('USAGE', 'no command', { hint: help });
  const [first = '', suggestion] = error.message.replace(/^error: /, '').split('\n');
  const hint = suggestion?.replace(/^\(Did you mean (.*)\?\)$/, 'did you mean $1?') ?? help;
  return new FusetapError('USAGE', first.replace(/\.$/, ''), { hint });
}

await main(process.argv.slice(2));
