/** `fusetap metrics`: prints what all buses count for Prometheus, or serves it. */
import type { Command } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import { escapeControls } from '../../drivers/quote.js';
import { endHelp, type SharedOptions } from '../options.js';
import { printJson } from '../output.js';
import { untilSignal } from '../run/until-signal.js';
import { chosenWatch, type ListenPlace, parseListenPlace } from '../watching/options.js';

interface MetricsOptions extends SharedOptions {
  listen?: ListenPlace;
  openmetrics?: boolean;
}

export function register(program: Command): void {
  const command = program
    .command('metrics')
    .summary('print or serve metrics for Prometheus')
    .description(
      'Prints what all buses count, or one, as metrics in the text format of Prometheus. With --listen, serves them by ' +
        'HTTP until it is ended, and prints one line that says where. docs/seeing.md lists the metrics.',
    )
    .option(
      '--listen <ADDRESS:PORT>',
      'serve them there; a PORT alone is on 127.0.0.1; port 0 is a free one',
      parseListenPlace,
    )
    .option('--openmetrics', 'print OpenMetrics text; a scraper gets the format that it asks for')
    .action(async (_: unknown, self: Command) => {
      const options = self.optsWithGlobals<MetricsOptions>();
      const { listen } = options;
      if (listen !== undefined && options.openmetrics) {
        throw new FusetapError('USAGE', '--openmetrics is for printing, and --listen serves', {
          hint: 'omit --openmetrics: a scraper gets the format that it asks for',
        });
      }
      const { printWatched, serveMetrics } = await import('../watching/serve-metrics.js');
      const watch = await chosenWatch(options);
      try {
        if (listen !== undefined) {
          await untilSignal((signal) =>
            serveMetrics(watch, listen, { signal, json: options.json === true, quiet: options.quiet === true }),
          );
          // to be ended is how it ends
          process.exitCode = 0;
          return;
        }
        const text = await printWatched(watch, options.openmetrics ? 'openmetrics' : 'prometheus', options.bus);
        if (options.json) printJson({ metrics: text });
        else process.stdout.write(process.stdout.isTTY ? visible(text) : text);
      } finally {
        watch.close();
      }
    });
  endHelp(command, [
    'fusetap metrics',
    'fusetap metrics --listen 9101',
    'fusetap metrics --listen 0.0.0.0:9101',
    "fusetap metrics | grep '^fusetap_bus_state.* 1$'",
  ]);
}

/** For a terminal: the names of images in it must not control it. */
function visible(text: string): string {
  return text.split('\n').map(escapeControls).join('\n');
}
