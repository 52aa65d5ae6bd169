/** The grammar of sizes, for programs: the same that options of filters and FUSETAP_RAM_LIMIT have. */
export { parseSize } from '../../drivers/parse-size.js';
