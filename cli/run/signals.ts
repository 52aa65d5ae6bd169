/**
 * Catches signals while `fusetap run` has vbds attached: no signal may end it before it has detached them. They are
 * forwarded to the command that it runs.
 */
import { readFileSync } from 'node:fs';

const CAUGHT = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/** signals that a terminal sends to its foreground process group, which includes the command */
const FROM_TERMINAL: readonly string[] = ['SIGINT', 'SIGQUIT'];

export interface SignalCatch {
  /** aborted with the first signal */
  readonly aborted: AbortSignal;
  /** the first signal that came */
  first(): NodeJS.Signals | undefined;
  /** From now on calls `receive` for each signal, except those that the terminal sends to the command as well. */
  forwardTo(receive: (signal: NodeJS.Signals) => void): void;
  /** Restores the default effect of the signals. */
  release(): void;
}

export function catchSignals(): SignalCatch {
  const controller = new AbortController();
  let first: NodeJS.Signals | undefined;
  let receiver: ((signal: NodeJS.Signals) => void) | undefined;
  const listener = (signal: NodeJS.Signals): void => {
    first ??= signal;
    controller.abort();
    if (!FROM_TERMINAL.includes(signal) || !isInForeground()) receiver?.(signal);
  };
  for (const signal of CAUGHT) process.on(signal, listener);
  return {
    aborted: controller.signal,
    first: () => first,
    forwardTo: (receive) => {
      receiver = receive;
    },
    release: () => {
      for (const signal of CAUGHT) process.off(signal, listener);
    },
  };
}

/** proc(5), stat: after the name in parentheses come state, ppid, pgrp, session, tty_nr, tpgid */
function isInForeground(): boolean {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const [, , group, , terminal, foreground] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return terminal !== '0' && group === foreground;
}
