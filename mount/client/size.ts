/** Sizes that the command line takes: the grammar, as in options of filters and in FUSETAP_RAM_LIMIT, and sectors. */
export { parseSize } from '../../drivers/parse-size.js';
export { SECTOR_SIZES, type SectorBytes } from '../../drivers/partitions/partition.js';
