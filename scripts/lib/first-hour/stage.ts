/** The machine of the new user: an empty home directory, a runtime directory, `fusetap` on the path, and three shells. */
import { chmod, mkdir, mkdtemp, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { clearTerritory, describeLeftovers, findLeftovers, MARK, type Territory } from '../test/leftovers.js';
import { Terminal } from './terminal.js';

export type ShellName = 'bash' | 'zsh' | 'fish';

const PROGRAM = resolve(import.meta.dirname, '../../../cli/main.cjs');
const LEFTOVER_PATIENCE_MS = 10_000;

/** After each command, the shells write its exit status and a rising number to the file STATUS. */
const START: Readonly<Record<ShellName, string>> = {
  bash: `PS1='$ '; PROMPT_COMMAND='echo "$? $((++TURNS))" >"$STATUS"'
bind 'set show-all-if-ambiguous on' 'set enable-bracketed-paste off'
[[ ! -e /usr/share/bash-completion/bash_completion ]] || source /usr/share/bash-completion/bash_completion
`,
  zsh: `PS1='$ '; precmd() { print -r -- "$? $((++TURNS))" >|$STATUS }; setopt no_list_ambiguous; unsetopt prompt_sp
`,
  fish: `set -g fish_greeting; set -g fish_autosuggestion_enabled 0; set -g TURNS 0
function fish_prompt
    set -l last $status
    set -g TURNS (math $TURNS + 1)
    echo $last $TURNS >$STATUS
    echo -n '$ '
end
`,
};

const COMMANDS: Readonly<Record<ShellName, (start: string) => string[]>> = {
  bash: (start) => ['bash', '--noprofile', '--rcfile', start, '-i'],
  zsh: () => ['zsh', '-d', '-i'],
  fish: (start) => ['fish', '--no-config', '--init-command', `source ${start}`],
};

export interface OpenShell {
  readonly terminal: Terminal;
  /** has `STATUS NUMBER` of the last command */
  readonly statusFile: string;
}

export class Stage {
  readonly home: string;
  readonly runtime: string;
  readonly #directory: string;
  readonly #territory: Territory;
  readonly #terminals = new Set<Terminal>();
  #shells = 0;

  private constructor(directory: string) {
    this.#directory = directory;
    this.#territory = { directory, mark: directory };
    this.home = join(directory, 'home');
    this.runtime = join(directory, 'runtime');
  }

  static async make(): Promise<Stage> {
    const stage = new Stage(await realpath(await mkdtemp(join(tmpdir(), 'first-hour-'))));
    await chmod(stage.#directory, 0o755);
    for (const name of ['home', 'bin']) await mkdir(join(stage.#directory, name));
    const program = `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' "$@"\n`;
    await writeFile(join(stage.#directory, 'bin/fusetap'), program, { mode: 0o755 });
    return stage;
  }

  /** Opens a terminal with a shell that waits for a command. */
  async open(shell: ShellName, columns = 80): Promise<OpenShell> {
    const own = join(this.#directory, `shell-${++this.#shells}`);
    await mkdir(own);
    const statusFile = join(own, 'status');
    // zsh finds its start file by its name
    const start = join(own, shell === 'zsh' ? '.zshrc' : 'start');
    await writeFile(start, START[shell]);
    const { FUSETAP_BUS: _, ...inherited } = process.env;
    const env = {
      ...inherited,
      ...{ HOME: this.home, ZDOTDIR: own, STATUS: statusFile, HISTFILE: '' },
      ...{ PATH: `${join(this.#directory, 'bin')}:${process.env.PATH}:/usr/sbin:/sbin` },
      ...{ FUSETAP_RUNTIME_DIR: this.runtime, [MARK]: this.#territory.mark },
    };
    const terminal = await Terminal.open({ command: COMMANDS[shell](start), cwd: this.home, env, columns, rows: 40 });
    this.#terminals.add(terminal);
    await terminal.waitForLine(/^\$$/);
    return { terminal, statusFile };
  }

  async shut(terminal: Terminal): Promise<void> {
    this.#terminals.delete(terminal);
    await terminal.close();
  }

  /** As it is typed here: the page has the runtime directory of root. */
  typed(line: string): string {
    return line.replaceAll('/run/fusetap', this.runtime);
  }

  /** Closes all terminals. @returns the processes, mounts and loop devices that are left */
  async leftovers(): Promise<string[]> {
    for (const terminal of this.#terminals) await this.shut(terminal);
    return describeLeftovers(await findLeftovers(this.#territory, LEFTOVER_PATIENCE_MS));
  }

  /** Removes everything, whatever happened. */
  async clear(): Promise<void> {
    for (const terminal of this.#terminals) await this.shut(terminal);
    await clearTerritory(this.#territory);
    await rm(this.#directory, { recursive: true, force: true });
  }
}
