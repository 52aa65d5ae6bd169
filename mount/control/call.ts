/**
 * Sends a request to a bus, named by its line in routes.ts: `call(place, 'POST /vbds/{vdev}/swap', { vdev, body })`.
 * The row of the request gives the types of its parts and of its answer.
 */
import type { BusPlace } from '../runtime/bus-place.js';
import { askBus, type ControlRequest, isNotRunning } from './http-client.js';
import type { AnswerOf, BodyOf, QueryOf, RowOf, VdevOf } from './routes.js';

/** The line of a request. */
export type Line = RowOf['line'];
/** The line of a request that a server without a keeper answers too. */
export type LineWithoutKeeper = Extract<RowOf, { withoutKeeper: true }>['line'];

type RowAt<At extends Line> = Extract<RowOf, { line: At }>;

/** The parts of a request, and the options for sending it. */
export type Sent<At extends Line> = VdevOf<RowAt<At>> &
  Partial<QueryOf<RowAt<At>, 'sent'>> &
  BodyOf<RowAt<At>, 'sent'> &
  Pick<ControlRequest, 'signal' | 'timeoutMs' | 'socket'> &
  (RowAt<At> extends { tellsProgress: true } ? Pick<ControlRequest, 'progress'> : unknown);

/** The body of the answer. */
export type Answered<At extends Line> = AnswerOf<RowAt<At>>;

/**
 * Asks the keeper, and returns the body of the answer.
 * @throws FusetapError as askBus
 */
export function call<At extends Line>(place: BusPlace, line: At, sent: Sent<At>): Promise<Answered<At>> {
  return askBus(place, requestOf(line, sent));
}

/** The same, but asks the server if the keeper has died. */
export async function callEither<At extends LineWithoutKeeper>(
  place: BusPlace,
  line: At,
  sent: Sent<At>,
): Promise<Answered<At>> {
  try {
    return await call(place, line, sent);
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    return await call(place, line, { ...sent, socket: 'server.sock' });
  }
}

/** All parts that a request can have. */
interface AnySent extends Omit<ControlRequest, 'method' | 'path'> {
  readonly vdev?: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
}

function requestOf(line: Line, { vdev = '', query = {}, ...rest }: AnySent): ControlRequest {
  const [method, pattern = ''] = line.split(' ');
  const path = pattern.replace('{vdev}', encodeURIComponent(vdev));
  const search = new URLSearchParams(Object.entries(query).filter(isGiven)).toString();
  return { ...rest, method: method as ControlRequest['method'], path: search === '' ? path : `${path}?${search}` };
}

function isGiven(entry: [key: string, value: string | undefined]): entry is [string, string] {
  return entry[1] !== undefined;
}
