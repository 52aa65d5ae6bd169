/**
 * The object that answers the requests of a bus: it has a method for each row of routes.ts, with the row's name. The
 * keeper has all of them. A server whose keeper died has those that need no keeper.
 */
import type { FusetapError } from '../../drivers/errors.js';
import type { LogRecord } from '../runtime/log-line.js';
import type { CopyWatcher } from './progress.js';
import type { AnswerOf, BodyOf, QueryOf, RouteName, RowOf, VdevOf } from './routes.js';

/** The argument of a method: the request as parsed by the schemas of its row, and the means to cancel and report. */
export type Asked<Name extends RouteName> = CopyWatcher &
  VdevOf<RowOf<Name>> &
  QueryOf<RowOf<Name>, 'given'> &
  BodyOf<RowOf<Name>, 'given'>;

/** the control socket answers these itself */
type MethodName = Exclude<RouteName, 'version' | 'metrics' | 'events'>;

type Methods<Name extends RouteName> = {
  [Each in Name]: (asked: Asked<Each>) => AnswerOf<RowOf<Each>> | Promise<AnswerOf<RowOf<Each>>>;
};

interface CanEnd {
  /** nothing is attached, and nothing can be attached any more: the mount and the processes are about to go */
  readonly over: boolean;
}

/** The events of a bus. */
export interface EventFeed {
  /** Each event from now on, until the bus ends or the signal is aborted. */
  follow(signal: AbortSignal): AsyncIterable<LogRecord>;
}

interface HasEvents {
  readonly feed: EventFeed;
}

interface HasServer {
  /** null if it is older than its keeper, and does not tell */
  readonly serverVersion: string | null;
}

export type KeeperControl = CanEnd & HasServer & HasEvents & Methods<MethodName>;

/** The names of the rows that need no keeper. */
type NameWithoutKeeper = {
  [Name in MethodName]: RowOf<Name> extends { withoutKeeper: true } ? Name : never;
}[MethodName];

export type OrphanControl = CanEnd &
  HasServer &
  HasEvents &
  Methods<NameWithoutKeeper> & {
    /** the error for all other requests */
    refusal(): FusetapError;
  };

export type BusControl = KeeperControl | OrphanControl;

export interface DetachChoice {
  /** detach it even if it is in use */
  readonly force: boolean;
  /** how long to wait first until it is not in use */
  readonly waitMs: number;
  /** aborted if the client disconnects: the vbd then stays, unless it is being flushed and closed already */
  readonly signal: AbortSignal;
}

export interface PauseChoice {
  /** the copy for which it is paused; default: the user's own pause */
  readonly copy?: string | undefined;
  /** aborted if the client disconnects: a pause that is not complete yet is undone */
  readonly signal: AbortSignal;
}
