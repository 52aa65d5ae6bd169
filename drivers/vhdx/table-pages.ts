/** The pages of the BAT and of sector bitmaps that are in memory. Nothing changes them, so a page can be dropped at any time. */
import type { ReplayedImage } from './replayed-image.js';

export const PAGE_BYTES = 64 << 10;
/** 4 MiB of them */
const MOST_PAGES = 64;

export class TablePages {
  readonly #image: ReplayedImage;
  /** by place in the image; the one used last is the last */
  readonly #pages = new Map<number, Buffer>();
  readonly #loading = new Map<number, Promise<Buffer>>();

  constructor(image: ReplayedImage) {
    this.#image = image;
  }

  /** The page if it is in memory. */
  peek(place: number): Buffer | undefined {
    return this.#pages.get(place);
  }

  /** @param place a multiple of PAGE_BYTES */
  async get(place: number): Promise<Buffer> {
    const known = this.#pages.get(place);
    if (known !== undefined) {
      this.#pages.delete(place);
      this.#pages.set(place, known);
      return known;
    }
    const loading = this.#loading.get(place) ?? this.#load(place).finally(() => this.#loading.delete(place));
    this.#loading.set(place, loading);
    return await loading;
  }

  async #load(place: number): Promise<Buffer> {
    const page = await this.#image.readAt(place, PAGE_BYTES);
    this.#pages.set(place, page);
    const [oldest] = this.#pages.keys();
    if (this.#pages.size > MOST_PAGES && oldest !== undefined) this.#pages.delete(oldest);
    return page;
  }
}
