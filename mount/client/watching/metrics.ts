/** The text for Prometheus, for programs that serve the metrics of several buses. */
export {
  formatFor,
  MEDIA_TYPES,
  type MetricsFormat,
  printMetrics,
} from '../../control/open-metrics.js';
