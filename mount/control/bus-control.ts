/**
 * What answers the requests of a bus: an object with a method for each row of routes.ts, by the row's name. The keeper is
 * one, and so is a server whose keeper died, for the rows that need none.
 */
import type { FusetapError } from '../../drivers/errors.js';
import type { CopyWatcher } from './progress.js';
import type { AnswerOf, BodyOf, QueryOf, RouteName, RowOf, VdevOf } from './routes.js';

/** A request as its method gets it: what the schemas of its row have made of it, and the client's patience. */
export type Asked<Name extends RouteName> = CopyWatcher &
  VdevOf<RowOf<Name>> &
  QueryOf<RowOf<Name>, 'given'> &
  BodyOf<RowOf<Name>, 'given'>;

/** the socket itself says its version */
type MethodName = Exclude<RouteName, 'version'>;

type Methods<Name extends RouteName> = {
  [Each in Name]: (asked: Asked<Each>) => AnswerOf<RowOf<Each>> | Promise<AnswerOf<RowOf<Each>>>;
};

interface CanEnd {
  /** nothing is attached any more, and nothing can be: its mount and its processes are to go */
  readonly over: boolean;
}

export type KeeperControl = CanEnd & Methods<MethodName>;

/** The names of the rows that need no keeper. */
type NameWithoutKeeper = {
  [Name in MethodName]: RowOf<Name> extends { withoutKeeper: true } ? Name : never;
}[MethodName];

export type OrphanControl = CanEnd &
  Methods<NameWithoutKeeper> & {
    /** what to say to all other requests */
    refusal(): FusetapError;
  };

export type BusControl = KeeperControl | OrphanControl;

export interface DetachChoice {
  /** cut off who holds it */
  readonly force: boolean;
  /** how long to wait for them first */
  readonly waitMs: number;
  /** aborted when the client has gone away: the vbd then stays, unless it is being flushed and closed already */
  readonly signal: AbortSignal;
}

export interface PauseChoice {
  /** the copy of its bytes that it is held for; missing: the user wants it */
  readonly copy?: string | undefined;
  /** aborted when the client has gone away: where the vbd is not held yet, it is let go */
  readonly signal: AbortSignal;
}
