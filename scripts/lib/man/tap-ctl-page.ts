/** The page tap-ctl(8), made from its commands and from docs/from-tapdisk.md. */
import type { Letters, TapCommand } from '../../../cli/tap-ctl/command.js';
import { TAP_COMMANDS } from '../../../cli/tap-ctl/commands.js';
import { blocksOf, sectionOf, tableIn } from './markdown.js';
import { type Block, bold, helpText, italic, join, marked, type Page, plain, type Roff, reference } from './roff.js';

export async function tapCtlPage(manual: string): Promise<Page> {
  const loaded = await Promise.all(Object.values(TAP_COMMANDS).map((load) => load()));
  const commands = loaded.map(({ command }) => command);
  const chapter = sectionOf(manual, 'tap-ctl');
  const [, introduction = ''] = manual.split(/\n\n/).slice(1);
  return {
    name: 'tap-ctl',
    section: 8,
    blocks: [
      section('Name'),
      { kind: 'paragraph', text: "tap\\-ctl \\- tapdisk's commands for fusetap" as Roff },
      section('Synopsis'),
      { kind: 'paragraph', text: join([bold('tap-ctl'), italic('COMMAND'), plain('[OPTION]...')], ' ') },
      section('Description'),
      ...blocksOf(introduction),
      section('Commands'),
      ...commands.flatMap(commandBlocks),
      section('States'),
      ...rows(chapter, '0x1'),
      section('Exit status'),
      { kind: 'paragraph', text: plain('0, or the errno of the error, which is one line on stderr.') },
      ...rows(chapter, 'ENOENT'),
      section('Examples'),
      { kind: 'code', lines: ['tap-ctl create -a aio:/srv/disk.img', 'tap-ctl list', 'tap-ctl destroy -p 4711 -m 0'] },
      section('See also'),
      { kind: 'paragraph', text: reference('fusetap', 1) },
    ],
  };
}

function commandBlocks({ usage, summary, letters }: TapCommand): Block[] {
  const [name = '', ...words] = usage.split(' ');
  return [
    { kind: 'subsection', text: bold(name) },
    { kind: 'paragraph', text: plain(`tap-ctl ${[name, ...words].join(' ')}`) },
    { kind: 'paragraph', text: helpText(summary) },
    ...letterItems(letters),
  ];
}

function letterItems(letters: Letters): Block[] {
  // an object has its digits first
  const options = Object.entries(letters).sort(([a], [b]) => Number(/\d/.test(a)) - Number(/\d/.test(b)));
  return options.map(([letter, { value, meaning }]) => {
    const flag = bold(`-${letter}`);
    return { kind: 'item', term: value === undefined ? flag : join([flag, italic(value)], ' '), text: plain(meaning) };
  });
}

/** The table of the chapter that has this word, each row an item. */
function rows(chapter: string, word: string): Block[] {
  const table = chapter.split(/\n\n/).find((part) => part.startsWith('|') && part.includes(` ${word} `)) ?? '';
  return tableIn(table).map(([term = '', ...cells]) => ({
    kind: 'item',
    term: marked(term),
    text: marked(cells.join(': ')),
  }));
}

const section = (title: string): Block => ({ kind: 'section', text: plain(title) });
