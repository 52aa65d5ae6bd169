/**
 * Signals while `fusetap run` has something attached: none may end it before it has detached. They go to the command
 * that it runs.
 */
import { readFileSync } from 'node:fs';

const CAUGHT = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;

/** what a terminal sends to all processes in front of it, the command among them */
const FROM_TERMINAL: readonly string[] = ['SIGINT', 'SIGQUIT'];

export interface SignalCatch {
  /** aborted with the first signal */
  readonly aborted: AbortSignal;
  /** the first signal that came */
  first(): NodeJS.Signals | undefined;
  /** From now on signals are given to `receive`, but for those that the terminal gives to the receiver itself. */
  forwardTo(receive: (signal: NodeJS.Signals) => void): void;
  /** Signals do again what they did before. */
  release(): void;
}

export function catchSignals(): SignalCatch {
  const controller = new AbortController();
  let first: NodeJS.Signals | undefined;
  let receiver: ((signal: NodeJS.Signals) => void) | undefined;
  const listener = (signal: NodeJS.Signals): void => {
    first ??= signal;
    controller.abort();
    if (!FROM_TERMINAL.includes(signal) || !isInFrontOfTerminal()) receiver?.(signal);
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

/** proc(5), stat: after the name in brackets: state, ppid, pgrp, session, tty_nr, tpgid */
function isInFrontOfTerminal(): boolean {
  const stat = readFileSync('/proc/self/stat', 'latin1');
  const [, , group, , terminal, foreground] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return terminal !== '0' && group === foreground;
}
