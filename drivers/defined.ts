/** Optional properties: with exactOptionalPropertyTypes, a property without a value must be omitted, not undefined. */

type OptionalKey<T> = { [Key in keyof T]-?: undefined extends T[Key] ? Key : never }[keyof T];

/** The same properties; those that can be undefined are optional. */
export type Defined<T> = Omit<T, OptionalKey<T>> & { [Key in OptionalKey<T>]?: Exclude<T[Key], undefined> };

/** A copy of an object without the properties that are undefined. */
export function defined<T extends object>(properties: T): Defined<T> {
  return Object.fromEntries(Object.entries(properties).filter(([, value]) => value !== undefined)) as Defined<T>;
}
