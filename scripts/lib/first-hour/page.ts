/** The page docs/first-hour.md, from what the screen showed. */
import type { Chapter } from './chapters.js';
import type { PlayedChapter, Shown } from './play.js';

const HEAD = `# The first hour

This page is a real session: \`scripts/first-hour\` of a clone typed these commands into a terminal, and this is what the screen
showed. Only times, numbers of processes and devices, and names of directories were replaced. You need an empty directory and
root (or see [support.md](support.md) for what other users can do). \`$ \` is the prompt of the shell.
`;

const HOME = '/home/you';

/** Where the session was, and how the page calls it. */
export interface Places {
  readonly home: string;
  readonly runtime: string;
}

export function drawPage(chapters: readonly PlayedChapter[], places: Places): string {
  const text = chapters.map(({ chapter, shown }) => drawChapter(chapter, shown, places)).join('\n');
  return plain(`${HEAD}\n${text}`, places);
}

function drawChapter({ title, text }: Chapter, shown: readonly Shown[], places: Places): string {
  const parts = [`## ${title}`, fold(text)];
  let block: string[] = [];
  for (const { intro, lines } of [...shown, { intro: ' ', lines: [] }]) {
    if (intro !== '' && block.length > 0) {
      parts.push(block.join('\n'));
      block = [];
    }
    if (intro.trim() !== '') parts.push(intro);
    block.push(...alignMounted(lines, places).map((line) => (line === '' ? '' : `    ${line}`)));
  }
  return `${parts.join('\n\n')}\n`;
}

/** Moves the last column of `fusetap ls`: the paths before it are shorter on the page. */
function alignMounted(lines: readonly string[], places: Places): string[] {
  const [, head = '', ...rows] = lines;
  const at = head.indexOf('MOUNTED');
  if (!head.startsWith('BUS ') || at < 0) return [...lines];
  const table = [head, ...rows].map((line) => [line.slice(0, at).trimEnd(), line.slice(at)] as const);
  const short = table.map(([front, last]) => [front.replaceAll(places.home, HOME), last] as const);
  const width = Math.max(...short.map(([front]) => front.length));
  return [lines[0] ?? '', ...short.map(([front, last]) => `${front.padEnd(width)}  ${last}`.trimEnd())];
}

/** Lines of at most 125 characters. */
function fold(text: string): string {
  return text.replace(/(.{1,125})(?: |$)/g, '$1\n').trimEnd();
}

/** The commands of a page, in its order. */
export function commandsOf(page: string): string[] {
  return [...page.matchAll(/^ {4}\$ (.*)$/gm)].map(([, line = '']) => line);
}

/** Without what differs from run to run. */
function plain(text: string, { home, runtime }: Places): string {
  let seconds = 0;
  return text
    .replaceAll(home, HOME)
    .replaceAll(runtime, '/run/fusetap')
    .replace(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, () => `2026-01-01T12:00:${String(seconds++).padStart(2, '0')}.000Z`)
    .replace(/\bpid \d+ /g, 'pid 4711 ')
    .replace(/\b(keeper|server|keeperPid|serverPid)([ =]+)\d+/g, (_, name: string, gap: string) => {
      return `${name}${gap}${name.startsWith('keeper') ? 4712 : 4713}`;
    })
    .replace(/\b(share +)\d+:\d+:\d+/g, '$1254:0:131072')
    .replace(/\/dev\/loop\d+/g, numbered('/dev/loop'))
    .replace(/\bmount-[0-9a-f]{12}\b/g, 'mount-5eed5eed5eed');
}

/** Numbers different words in the order in which they come. */
function numbered(front: string): (word: string) => string {
  const found: string[] = [];
  return (word) => {
    if (!found.includes(word)) found.push(word);
    return `${front}${found.indexOf(word)}`;
  };
}
