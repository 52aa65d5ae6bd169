/** `fusetap completion`: a script that completes the words of fusetap in a shell, made from the commands themselves. */
import { Argument, type Command } from 'commander';
import { bashCompletion } from '../completion/bash.js';
import { fishCompletion } from '../completion/fish.js';
import { completedCommands, sharedOptions } from '../completion/words.js';
import { zshCompletion } from '../completion/zsh.js';
import { endHelp } from '../options.js';
import { addCommands, COMMANDS, makeProgram } from '../program.js';

const SHELLS = { bash: bashCompletion, zsh: zshCompletion, fish: fishCompletion };

export function register(program: Command): void {
  const command = program
    .command('completion')
    .summary('a script that completes words in a shell')
    .description('Prints a script with which bash, zsh or fish completes the words of fusetap.')
    .addArgument(new Argument('<SHELL>', 'the shell').choices(Object.keys(SHELLS)))
    .action(async (shell: keyof typeof SHELLS) => {
      const whole = makeProgram();
      await addCommands(whole, Object.keys(COMMANDS));
      process.stdout.write(SHELLS[shell](completedCommands(whole), sharedOptions(whole)));
    });
  endHelp(command, ['source <(fusetap completion bash)', 'fusetap completion fish | source']);
}
