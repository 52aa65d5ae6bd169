/**
 * A program that attaches an image and detaches it again, over and over, on one bus after another.
 *
 *     node ram-racer.js RUNTIME_DIR IMAGE TIMES BUS…
 *
 * A bus that is not there begins with the attach and ends with the detach.
 */
import { attach, detach, resolveBus } from '../../mount/client/index.js';

const [runtimeDir = '', image = '', times = '', ...buses] = process.argv.slice(2);

for (let round = 0; round < Number(times); round++) {
  const place = await resolveBus(buses[round % buses.length] as string, runtimeDir);
  const { vdev } = await attach(place, { driver: 'ram', image, vdev: null, mode: 'w', options: {} });
  await detach(place, vdev, {});
}
