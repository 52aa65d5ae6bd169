/**
 * Fits hints to the command that prints them. A bus does not know which command asked: its hint may name an option that
 * this command does not have. Such clauses are dropped.
 */
import type { Command } from 'commander';

/** programs whose options a hint may name */
const OTHER_PROGRAMS = ['docker', 'fusetap', 'losetup', 'nsenter', 'truncate'];

/** Between two clauses, as in `close it there, or wait with --wait SECONDS`. */
const BETWEEN = /(, or |; or |; |, )/;
const OPTION = /(?<![\w-])--[a-z][a-z-]*/g;

/**
 * The hint without clauses that name an option of no command.
 * @param options the long options of the command
 * @param commands the names of all commands: an option in a clause with such a name belongs to that command
 * @returns undefined if nothing is left
 */
export function fitHint(hint: string, options: readonly string[], commands: readonly string[]): string | undefined {
  const parts = hint.split(BETWEEN);
  const fits = (clause: string): boolean => {
    const names = clause.match(OPTION) ?? [];
    const isForOther = clause
      .split(/[^a-z-]+/)
      .some((word) => commands.includes(word) || OTHER_PROGRAMS.includes(word));
    return isForOther || names.every((name) => options.includes(name));
  };
  const kept: string[] = [];
  for (let i = 0; i < parts.length; i += 2) {
    const clause = parts[i] ?? '';
    if (fits(clause)) kept.push(kept.length === 0 ? clause : `${parts[i - 1]}${clause}`);
  }
  return kept.length === 0 ? undefined : kept.join('');
}

/** The long options that a command takes, the shared ones too. */
export function longOptionsOf(command: Command): string[] {
  return [...command.options, ...(command.parent?.options ?? [])].flatMap(({ long }) => long ?? []);
}
