/** Fetches the other versions of Node for the tests. `scripts/setup --nodes` runs it; the test run reports a missing one. */
import { existsSync } from 'node:fs';
import { fetchNode, otherNodes, programOf } from './nodes.js';

for (const node of otherNodes()) {
  if (existsSync(programOf(node))) continue;
  console.error(`setup: fetching Node ${node.version} for the tests`);
  await fetchNode(node).catch((error: Error) => {
    console.error(`setup: could not fetch Node ${node.version}: ${error.message.trim()}`);
  });
}
