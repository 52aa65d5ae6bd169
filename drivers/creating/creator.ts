/** The contract of a creator, which makes new images of a format: types only. */

export interface NewImage {
  /** of the file, without its directory: some formats state it; default: it is not known */
  readonly name?: string;
  /** of the disk, in bytes; above 0 */
  readonly size: number;
  /** what the disk shows where nothing was written; null: zeros */
  readonly backing: {
    /** as it will stand in the image */
    readonly name: string;
    /** its format, as QEMU calls it */
    readonly format: string;
    /** what images over it state: see RawDisk.identity; default: it has none */
    readonly identity?: string | null;
  } | null;
  readonly options: Readonly<Record<string, string>>;
}

export interface Creator {
  /**
   * Looks at nothing but its argument.
   * @returns the size that the disk will have: the format may round it up
   * @throws FusetapError USAGE or UNSUPPORTED if there can be no such image
   */
  check(image: NewImage): number;
  /**
   * Writes the image. `check` was called for it.
   * @param fd of an empty file, open for reading and writing
   */
  write(fd: number, image: NewImage): Promise<void>;
}
