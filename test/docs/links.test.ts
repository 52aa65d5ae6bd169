/** The pages that are installed with the package: each relative link leads to a file of the package, each anchor to a heading. */
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join, posix, resolve } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import { isInstalled } from '../e2e/command.js';

const ROOT = resolve(import.meta.dirname, '../../..');

/** Pages whose readers have a clone. */
const FOR_DEVELOPERS = ['CONTRIBUTING.md', 'CHANGELOG.md', 'docs/architecture.md'];

/** The paths of all files that npm would pack. */
async function packedFiles(): Promise<string[]> {
  // the lists of a dry run are the same whether dist is built or not, but for dist itself
  const { stdout } = await promisify(execFile)('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: ROOT,
    maxBuffer: 1 << 26,
  });
  const [packed] = JSON.parse(stdout) as { files: { path: string }[] }[];
  return packed?.files.map(({ path }) => path) ?? [];
}

/** The text of a page without its code, where brackets are no links. */
function prose(page: string): string {
  return page
    .replaceAll(/^```[\s\S]*?^```$/gm, '')
    .replaceAll(/^ {4}.*$/gm, '')
    .replaceAll(/`[^`\n]*`/g, (code) => code.replaceAll(/[[\]()]/g, ''));
}

/** The targets of a page's links and images that are not on the web. */
function relativeLinks(page: string): string[] {
  const targets = [...prose(page).matchAll(/\]\(([^)\s]+)\)/g)].map(([, target]) => target ?? '');
  return targets.filter((target) => !/^[a-z]+:/.test(target));
}

/** The anchors of a page's headings, as GitHub makes them. */
function anchors(page: string): string[] {
  const headings = [...page.matchAll(/^#{1,6} (.+)$/gm)].map(([, heading]) => heading ?? '');
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
      .replaceAll(' ', '-'),
  );
}

t.test('what counts as a link, and as an anchor', async (t) => {
  const page =
    '# Big `Page`: one\n[a](b.md#c) ![d](e.svg)\n    $ [f](g)\n`h](i)` [j](https://k)\n[`l`](#big-page-one)\n';
  t.same(relativeLinks(page), ['b.md#c', 'e.svg', '#big-page-one']);
  t.same(anchors(page), ['big-page-one']);
});

/** The programs in scripts/ that a page names. */
function scriptsIn(page: string): string[] {
  return [...page.matchAll(/(?<![\w/])scripts\/([a-z][a-z-]*)/g)].map(([, name]) => `scripts/${name}`);
}

t.test('the links of the packed pages', { skip: isInstalled('npm') ? false : 'npm is not installed' }, async (t) => {
  const packed = new Set(await packedFiles());
  const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8');
  const pages = [...packed].filter((path) => path.endsWith('.md'));
  t.ok(pages.length > 10, `${pages.length} pages`);
  let links = 0;
  for (const page of pages) {
    const scripts = scriptsIn(read(page)).filter((script) => ![...packed].some((path) => path.startsWith(script)));
    if (scripts.length > 0 && !FOR_DEVELOPERS.includes(page))
      t.match(read(page), /\bclone\b/, `${page} names ${scripts}: it says that a clone has them`);
    for (const link of relativeLinks(read(page))) {
      links++;
      const [path = '', anchor] = link.split('#');
      const target = path === '' ? page : posix.join(posix.dirname(page), path);
      if (!packed.has(target)) t.fail(`${page}: ${link} is not in the package`);
      else if (anchor !== undefined && !anchors(read(target)).includes(anchor))
        t.fail(`${page}: ${link}: no heading has this anchor`);
    }
  }
  t.ok(links > 40, `${links} links`);
});
