/** The page fusetap.drivers(7): what users of drivers and filters read in the documentation. */
import { driverNames } from '../../../drivers/names.js';
import { blocksOf, sectionOf } from './markdown.js';
import { type Block, join, type Page, plain, type Roff, reference } from './roff.js';

/** @param read gives the text of a file of the package */
export function driversPage(read: (path: string) => string): Page {
  const manual = read('docs/drivers.md');
  return {
    name: 'fusetap.drivers',
    section: 7,
    blocks: [
      section('Name'),
      { kind: 'paragraph', text: 'fusetap.drivers \\- drivers and filters of fusetap' as Roff },
      section('Description'),
      ...blocksOf(introduction(manual).split('\n').slice(1).join('\n')).slice(0, 1),
      ...blocksOf(sectionOf(manual, 'Choosing one')),
      ...driverNames.flatMap((name) => [
        section(`Driver ${name}`),
        ...blocksOf(forUsers(read(`drivers/${name}/README.md`))),
      ]),
      section('Filters'),
      ...blocksOf(forUsers(read('drivers/filters/README.md'))),
      section('Third-party drivers'),
      ...blocksOf(sectionOf(manual, 'Third-party drivers')),
      section('See also'),
      { kind: 'paragraph', text: join([reference('fusetap', 1), reference('fusetap-attach', 1)], ', ') },
    ],
  };
}

/** A page up to its first subheading. */
const introduction = (text: string): string => text.split(/^## /m)[0] ?? '';

/** The half of a README for users, without its title. */
const forUsers = (readme: string): string => introduction(readme).split('\n').slice(1).join('\n');

const section = (title: string): Block => ({ kind: 'section', text: plain(title) });
