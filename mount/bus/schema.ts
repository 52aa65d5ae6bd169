/**
 * What a request has to be, as data that is checked against and that docs/openapi.json is made from.
 *
 * Keeper and server are root's, live for long and are many, so this is written here and not taken from a package: nothing
 * is loaded for it at run time.
 */

/** What OpenAPI says of a value. */
export type JsonSchema = Readonly<Record<string, unknown>>;

/** Where in a request something is wrong, and what. */
export interface Issue {
  readonly path: readonly string[];
  readonly message: string;
}

class Mismatch extends Error {
  readonly issue: Issue;

  constructor(path: readonly string[], message: string) {
    super(message);
    this.issue = { path, message };
  }
}

type Check<T> = (value: unknown, path: readonly string[]) => T;

export type Parsed<T> =
  | { readonly success: true; readonly data: T }
  | { readonly success: false; readonly issue: Issue };

/** A kind of value. Each word that is added to it makes a new one. */
export class Schema<T> {
  readonly json: JsonSchema;
  /** the key may be missing in an object */
  readonly mayBeMissing: boolean;
  readonly check: Check<T>;

  constructor(json: JsonSchema, check: Check<T>, mayBeMissing = false) {
    this.json = json;
    this.check = check;
    this.mayBeMissing = mayBeMissing;
  }

  safeParse(value: unknown): Parsed<T> {
    try {
      return { success: true, data: this.check(value, []) };
    } catch (error) {
      if (error instanceof Mismatch) return { success: false, issue: error.issue };
      throw error;
    }
  }

  describe(description: string): Schema<T> {
    return new Schema({ description, ...this.json }, this.check, this.mayBeMissing);
  }

  nullable(): Schema<T | null> {
    const { type, ...rest } = this.json;
    const isPlain = Object.keys(rest).length === 0;
    const json = isPlain ? { type: [type, 'null'] } : { anyOf: [this.json, { type: 'null' }] };
    return new Schema(json, (value, path) => (value === null ? null : this.check(value, path)), this.mayBeMissing);
  }

  optional(): Schema<T | undefined> {
    return new Schema(this.json, (value, path) => (value === undefined ? undefined : this.check(value, path)), true);
  }

  default(missing: T): Schema<T> {
    const check: Check<T> = (value, path) => (value === undefined ? missing : this.check(value, path));
    return new Schema({ default: missing, ...this.json }, check, true);
  }

  /** The same with one more condition. */
  protected also(isRight: (value: T) => boolean, message: string): Check<T> {
    return (value, path) => {
      const checked = this.check(value, path);
      if (!isRight(checked)) throw new Mismatch(path, message);
      return checked;
    };
  }
}

export class StringSchema extends Schema<string> {
  #with(json: JsonSchema, isRight: (value: string) => boolean, message: string): StringSchema {
    return new StringSchema({ ...this.json, ...json }, this.also(isRight, message));
  }

  min(minLength: number): StringSchema {
    const message = `must have at least ${minLength} characters`;
    return this.#with({ minLength }, (value) => value.length >= minLength, message);
  }

  max(maxLength: number): StringSchema {
    const message = `must have at most ${maxLength} characters`;
    return this.#with({ maxLength }, (value) => value.length <= maxLength, message);
  }

  regex(pattern: RegExp, message: string): StringSchema {
    return this.#with({ pattern: pattern.source }, (value) => pattern.test(value), message);
  }
}

export class NumberSchema extends Schema<number> {
  #with(json: JsonSchema, isRight: (value: number) => boolean, message: string): NumberSchema {
    return new NumberSchema({ ...this.json, ...json }, this.also(isRight, message));
  }

  min(minimum: number): NumberSchema {
    return this.#with({ minimum }, (value) => value >= minimum, `must be at least ${minimum}`);
  }

  max(maximum: number): NumberSchema {
    return this.#with({ maximum }, (value) => value <= maximum, `must be at most ${maximum}`);
  }
}

/** A value that `is` one of the kind, and what to say of all others. */
function kind<T>(is: (value: unknown) => value is T, what: string): Check<T> {
  return (value, path) => {
    if (is(value)) return value;
    throw new Mismatch(path, value === undefined ? 'is missing' : `must be ${what}`);
  };
}

export const string = (): StringSchema =>
  new StringSchema(
    { type: 'string' },
    kind((value) => typeof value === 'string', 'a string'),
  );

export const boolean = (): Schema<boolean> =>
  new Schema(
    { type: 'boolean' },
    kind((value) => typeof value === 'boolean', 'true or false'),
  );

export const int = (): NumberSchema =>
  new NumberSchema(
    { type: 'integer' },
    kind((value): value is number => Number.isSafeInteger(value), 'an integer'),
  );

export const number = (): NumberSchema =>
  new NumberSchema(
    { type: 'number' },
    kind((value): value is number => Number.isFinite(value), 'a number'),
  );

/** A number as it stands in a query: text. */
export const numberText = (): NumberSchema =>
  new NumberSchema({ type: 'number' }, (value, path) => {
    const number = typeof value === 'string' && value.trim() !== '' ? Number(value) : Number.NaN;
    if (!Number.isFinite(number)) throw new Mismatch(path, 'must be a number');
    return number;
  });

export function oneOf<const Words extends readonly string[]>(words: Words): Schema<Words[number]> {
  const is = (value: unknown): value is Words[number] => words.includes(value as string);
  return new Schema({ type: 'string', enum: words }, kind(is, `one of ${words.join(', ')}`));
}

export function array<T>(item: Schema<T>): Schema<T[]> {
  return new Schema({ type: 'array', items: item.json }, (value, path) => {
    const items = kind((found: unknown): found is unknown[] => Array.isArray(found), 'an array')(value, path);
    return items.map((each, i) => item.check(each, [...path, `${i}`]));
  });
}

const anObject = kind(
  (value): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value),
  'an object',
);

/** An object with any keys. */
export function record<T>(item: Schema<T>): Schema<Record<string, T>> {
  return new Schema({ type: 'object', additionalProperties: item.json }, (value, path) => {
    const entries = Object.entries(anObject(value, path));
    return Object.fromEntries(entries.map(([key, each]) => [key, item.check(each, [...path, key])]));
  });
}

type Shape = Readonly<Record<string, Schema<unknown>>>;
type TypeOf<S> = S extends Schema<infer T> ? T : never;
type OptionalKeys<S extends Shape> = { [K in keyof S]: undefined extends TypeOf<S[K]> ? K : never }[keyof S];
type ObjectOf<S extends Shape> = { [K in Exclude<keyof S, OptionalKeys<S>>]: TypeOf<S[K]> } & {
  [K in OptionalKeys<S>]?: TypeOf<S[K]>;
};

/** An object with these keys. @param ignoresOthers whether it may have others, which are left out */
export function object<S extends Shape>(shape: S, { ignoresOthers = false } = {}): Schema<ObjectOf<S>> {
  const keys = Object.keys(shape);
  const required = keys.filter((key) => shape[key]?.mayBeMissing === false);
  const properties = Object.fromEntries(Object.entries(shape).map(([key, { json }]) => [key, json]));
  const needs = required.length > 0 ? { required } : {};
  const json = { type: 'object', properties, ...needs, ...(!ignoresOthers && { additionalProperties: false }) };
  return new Schema(json, (value, path) => {
    const given = anObject(value, path);
    const stranger = Object.keys(given).find((key) => !Object.hasOwn(shape, key));
    if (stranger !== undefined && !ignoresOthers) throw new Mismatch(path, `has a key that is not known: ${stranger}`);
    const checked = Object.entries(shape).map(([key, each]) => [key, each.check(given[key], [...path, key])] as const);
    return Object.fromEntries(checked.filter(([, item]) => item !== undefined)) as ObjectOf<S>;
  });
}
