/**
 * Loads drivers that do not come with fusetap from a file and checks them against the contract. The compiler checks the
 * built-in drivers; these are checked here, so that a mistake gives a clear message and not a strange reply to a read.
 */
import { access } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';
import { trustExtraCertificates } from '../system/extra-certificates.js';
import type { Driver, RawDisk, Segment, Window } from './driver.js';
import { type ErrorCode, EXIT_CODES, FusetapError, toFusetapError } from './errors.js';
import { wrapDisk } from './filters/wrap-disk.js';
import { type AnyDriver, asDriver } from './image-driver.js';
import { quoted } from './quote.js';
import { oneSegment } from './segments/one-segment.js';
import { areWhole } from './segments/segments.js';

const HINT = 'docs/drivers.md has the contract, and a complete driver';

type Fields = Readonly<Record<string, unknown>>;

/**
 * Loads the driver that is the default export of a module.
 * @param path absolute
 * @throws FusetapError NOT_FOUND no such file; FAILED it cannot be loaded; UNSUPPORTED it breaks the contract
 */
export async function loadThirdParty(path: string): Promise<Driver> {
  await access(path).catch((cause: unknown) => {
    throw new FusetapError('NOT_FOUND', `no such driver: ${quoted(path)}`, { path, cause, hint: 'check the path' });
  });
  // it may connect to anything
  trustExtraCertificates();
  const module = await import(pathToFileURL(path).href).catch((cause: unknown) => {
    const why = cause instanceof Error ? `${cause.name}: ${cause.message}` : String(cause);
    const hint = `try it: node ${path}`;
    throw new FusetapError('FAILED', `the driver ${quoted(path)} cannot be loaded: ${why}`, { path, cause, hint });
  });
  const driver = checkDriver((module as Fields).default, path);
  return withPlainErrors(driver);
}

/** @throws FusetapError UNSUPPORTED that names the first fault */
export function checkDriver(value: unknown, path: string): Driver {
  const broken = breaks(`the driver ${quoted(path)}`);
  if (typeof value !== 'object' || value === null)
    throw broken(`its default export is ${kindOf(value)}, not an object`);
  const driver = value as Fields;
  const isName = typeof driver.name === 'string' && /^[a-z][a-z0-9-]*$/.test(driver.name);
  if (!isName) throw broken(`its name is ${shown(driver.name)}: use lower case letters, digits and hyphens`);
  if (driver.roles !== undefined) checkRoles(driver, broken);
  else if (driver.image !== 'required' && driver.image !== 'none') {
    throw broken(`its image is ${shown(driver.image)}, not 'required' or 'none'`);
  }
  mustBeFunctions(driver, ['open'], ['prepare', 'measure', 'needs', 'check', 'repair'], broken);
  if (!['boolean', 'undefined'].includes(typeof driver.grows))
    throw broken(`its grows is ${shown(driver.grows)}, not a boolean`);
  if (!['boolean', 'undefined'].includes(typeof driver.sharesMemory)) {
    throw broken(`its sharesMemory is ${shown(driver.sharesMemory)}, not a boolean`);
  }
  if (driver.sharesMemory === true && driver.prepare === undefined) {
    throw broken('it has sharesMemory but no prepare to fill the memory');
  }
  return asDriver(value as AnyDriver);
}

function checkRoles({ roles, scratch, prepare }: Fields, broken: (what: string) => FusetapError): void {
  if (typeof roles !== 'object' || roles === null) throw broken(`its roles are ${kindOf(roles)}, not an object`);
  for (const [name, role] of Object.entries(roles as Fields)) {
    const { takes, access } = (role ?? {}) as Fields;
    if (!/^[a-z]+$/.test(name)) throw broken(`a role is ${shown(name)}: use lower case letters`);
    if (takes !== 'file' && takes !== 'disk') throw broken(`${name} takes ${shown(takes)}, not 'file' or 'disk'`);
    if (access === 'as-parent' || access === 'read') continue;
    throw broken(`${name} has the access ${shown(access)}, not 'as-parent' or 'read'`);
  }
  if (!['own', 'shared', undefined].includes(scratch as string)) {
    throw broken(`its scratch is ${shown(scratch)}, not 'own' or 'shared'`);
  }
  if (scratch !== undefined && prepare === undefined) {
    throw broken('it has scratch but no prepare to fill the memory');
  }
}

/** @throws FusetapError UNSUPPORTED that names the first fault */
export function checkDisk(value: unknown, driver: string): RawDisk {
  const broken = breaks(`the disk that driver ${driver} opened`);
  if (typeof value !== 'object' || value === null) throw broken(`it is ${kindOf(value)}, not an object`);
  const disk = value as Fields;
  if (!Number.isSafeInteger(disk.size) || (disk.size as number) <= 0) {
    throw broken(`its size is ${shown(disk.size)}: it must be a whole number of bytes above 0`);
  }
  mustBeFunctions(disk, ['read', 'close'], ['write', 'flush', 'zero', 'extents', 'changes', 'commit'], broken);
  if (disk.growth !== undefined && !isGrowth(disk.growth)) throw broken('its growth is not {measure, grow}');
  const size = disk.size as number;
  if (disk.window !== undefined && !isWindow(disk.window, size)) {
    throw broken('its window is not {fd, start, size, kind, readOnly, durable} with the size of the disk');
  }
  if (disk.segments !== undefined && !areSegments(disk.segments, size)) {
    throw broken('its segments are not windows with an offset, in order, without gaps, with the size of the disk');
  }
  const raw = value as RawDisk;
  // drivers of earlier versions have a window in place of segments
  if (disk.window === undefined || disk.segments !== undefined) return raw;
  return wrapDisk(raw, { segments: oneSegment(disk.window as Window) });
}

function isGrowth(value: unknown): boolean {
  const { measure, grow } = (value ?? {}) as Fields;
  return typeof measure === 'function' && typeof grow === 'function';
}

function areSegments(value: unknown, size: number): boolean {
  if (!Array.isArray(value)) return false;
  const segments = value as Segment[];
  return segments.every((segment) => isWindow(segment, segment?.size)) && areWhole(segments, size);
}

function isWindow(value: unknown, size: number): boolean {
  const { fd, start, kind, readOnly, durable, ...rest } = (value ?? {}) as Partial<Window>;
  if (!Number.isSafeInteger(size) || size <= 0) return false;
  const areBytes = [fd, start].every((n) => Number.isSafeInteger(n) && (n as number) >= 0);
  const areFlags = typeof readOnly === 'boolean' && typeof durable === 'boolean';
  return areBytes && areFlags && rest.size === size && ['file', 'block', 'memory'].includes(kind as string);
}

function mustBeFunctions(
  object: Fields,
  required: readonly string[],
  optional: readonly string[],
  broken: (what: string) => FusetapError,
): void {
  for (const name of required) if (object[name] === undefined) throw broken(`it has no ${name}`);
  for (const name of [...required, ...optional]) {
    const what = object[name];
    if (what !== undefined && typeof what !== 'function')
      throw broken(`its ${name} is ${kindOf(what)}, not a function`);
  }
}

function breaks(subject: string): (what: string) => FusetapError {
  return (what) => new FusetapError('UNSUPPORTED', `${subject} breaks the contract: ${what}`, { hint: HINT });
}

function kindOf(value: unknown): string {
  if (value === undefined) return 'missing';
  if (value === null) return 'null';
  return `a ${typeof value}`;
}

function shown(value: unknown): string {
  if (typeof value === 'string') return quoted(value);
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : kindOf(value);
}

/** Translates errors, so that a driver can use fusetap's codes without FusetapError, or with another copy of it. */
function withPlainErrors(driver: Driver): Driver {
  // call the methods on the driver, so that `this` is the driver
  return {
    ...driver,
    ...(driver.check && { check: (options) => saidNow(() => driver.check?.(options)) }),
    ...(driver.needs && { needs: (context) => said(async () => (await driver.needs?.(context)) ?? []) }),
    ...(driver.measure && { measure: (context) => said(async () => (await driver.measure?.(context)) ?? 0) }),
    ...(driver.prepare && { prepare: (context) => said(async () => (await driver.prepare?.(context)) ?? null) }),
    ...(driver.repair && { repair: (context) => said(async () => remarks(await driver.repair?.(context))) }),
    open: (context) => said(async () => driver.open(context)),
  };

  function remarks(value: unknown): readonly string[] {
    const isList = Array.isArray(value) && value.every((remark) => typeof remark === 'string');
    if (value === undefined || isList) return value ?? [];
    throw breaks('what repair returned')('it is not a list of texts');
  }

  function saidNow(call: () => void): void {
    try {
      call();
    } catch (error) {
      throw translated(error, driver.name);
    }
  }

  async function said<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      throw translated(error, driver.name);
    }
  }
}

function translated(error: unknown, driver: string): FusetapError {
  const { code, message, hint, errno } = (error ?? {}) as Partial<FusetapError>;
  const text = `driver ${driver}: ${message ?? String(error)}`;
  if (!Object.hasOwn(EXIT_CODES, code ?? '')) return toFusetapError(error, text);
  return new FusetapError(code as ErrorCode, text, { hint, errno, cause: error });
}
