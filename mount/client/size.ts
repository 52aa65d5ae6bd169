/** The grammar of sizes, as in options of filters and in FUSETAP_RAM_LIMIT. */
export { parseSize } from '../../drivers/parse-size.js';
