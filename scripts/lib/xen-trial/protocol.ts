/**
 * What the agent in the dom0 writes to the second serial line (dom0/agent has the other half):
 *
 *      @@ about TEXT                     what runs there, once
 *      @@ ready                          it has booted, and takes the name of a scenario
 *      @@ end NAME STATUS SECONDS        a scenario has ended; its output came before
 *
 * Everything else is output.
 */

export type Report =
  | { readonly kind: 'about'; readonly text: string }
  | { readonly kind: 'ready' }
  /** `seconds` of the dom0's clock, which an emulated CPU makes slower than a real one */
  | { readonly kind: 'end'; readonly name: string; readonly status: number; readonly seconds: number }
  | { readonly kind: 'output'; readonly text: string };

export function parseReport(line: string): Report {
  const text = line.replace(/\r$/, '');
  if (text === '@@ ready') return { kind: 'ready' };
  const about = /^@@ about (.+)$/.exec(text)?.[1];
  if (about !== undefined) return { kind: 'about', text: about };
  const [, name, status, seconds] = /^@@ end ([a-z0-9-]+) (\d+) (\d+\.\d)$/.exec(text) ?? [];
  if (name === undefined) return { kind: 'output', text };
  return { kind: 'end', name, status: Number(status), seconds: Number(seconds) };
}
