/**
 * error=KIND[:OFFSET-END][@FILE]: requests of one kind fail with EIO. With OFFSET-END only those fail that touch a byte
 * from OFFSET up to, not including, END; with FILE they fail only while FILE exists. Two error filters make two kinds
 * fail.
 */
import { access } from 'node:fs/promises';
import { constants } from 'node:os';
import { isAbsolute } from 'node:path';
import { FusetapError } from '../errors.js';
import { parseSize } from '../parse-size.js';
import { quoted } from '../quote.js';
import { beforeRequests, KINDS, type Kind, type PassingRequest } from './before.js';
import type { FilterMaker } from './filter.js';

interface ErrorRule {
  readonly kind: Kind;
  readonly start: number;
  readonly end: number;
  /** absolute path of FILE; null: requests always fail */
  readonly trigger: string | null;
}

const FORM = /^([a-z]+)(?::([^-@]*)-([^@]*))?(?:@(.+))?$/s;

export const error: FilterMaker = (value) => {
  const rule = parseErrorRule(value);
  return (next) =>
    beforeRequests(next, async (request) => {
      if (isMeant(rule, request) && (await isOn(rule))) throw injected(request);
    });
};

/** @throws FusetapError USAGE */
export function parseErrorRule(value: string): ErrorRule {
  const [, word, from, to, trigger] = FORM.exec(value) ?? [];
  const kind = KINDS.find((known) => known === word);
  if (kind === undefined) {
    throw refuse(value, `the form is KIND[:OFFSET-END][@FILE], KIND one of ${KINDS.join(', ')}`);
  }
  if (trigger !== undefined && !isAbsolute(trigger)) throw refuse(value, 'give the absolute path of the file');
  if (from === undefined || to === undefined) {
    return { kind, start: 0, end: Number.POSITIVE_INFINITY, trigger: trigger ?? null };
  }
  if (kind === 'flush') throw refuse(value, 'a flush concerns the whole disk: give no range');
  const [start, end] = [parseSize(from, 'error'), parseSize(to, 'error')];
  if (start >= end) throw refuse(value, 'OFFSET must be below END');
  return { kind, start, end, trigger: trigger ?? null };
}

function refuse(value: string, hint: string): FusetapError {
  return new FusetapError('USAGE', `filter error: ${quoted(value)} is not a rule`, { hint });
}

function isMeant({ kind, start, end }: ErrorRule, request: PassingRequest): boolean {
  return request.kind === kind && request.offset < end && request.offset + request.length > start;
}

async function isOn({ trigger }: ErrorRule): Promise<boolean> {
  if (trigger === null) return true;
  return access(trigger).then(
    () => true,
    () => false,
  );
}

function injected({ kind, offset }: PassingRequest): FusetapError {
  return new FusetapError('FAILED', `${kind} at byte ${offset}: injected error`, {
    errno: constants.errno.EIO,
    operation: kind,
    offset,
    hint: 'the vbd has the filter error',
  });
}
