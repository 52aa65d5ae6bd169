/** The programs that the documentation shows, as they stand there. */
import { readFileSync } from 'node:fs';

const DOCS = new URL('../../../docs/', import.meta.url);

/** The code block of a page that begins with `// NAME`. @throws Error where there is none */
export function readExample(page: string, name: string): string {
  const text = readFileSync(new URL(page, DOCS), 'utf8');
  const blocks = [...text.matchAll(/^```[a-z]+\n([\s\S]*?)^```$/gm)].map(([, code]) => code ?? '');
  const found = blocks.find((code) => code.startsWith(`// ${name}\n`));
  if (found === undefined) throw new Error(`docs/${page} shows no ${name}`);
  return found;
}
