/** A real Chromium without a window, driven over its debugging protocol. It is that of the system: nothing is downloaded. */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import type { Test } from 'tap';

const PROGRAM = '/usr/bin/chromium';
const FLAGS = [
  ...['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run'],
  ...['--disable-background-networking', '--disable-component-update', '--disable-sync'],
];

/** Why this machine has no browser for a test; false if it has one. */
export function whyNoBrowser(): string | false {
  return existsSync(PROGRAM) ? false : `not installed: ${PROGRAM}`;
}

export async function openBrowser(t: Test): Promise<Browser> {
  const browser = await chromium.launch({ executablePath: PROGRAM, args: FLAGS });
  t.teardown(() => browser.close());
  return browser;
}

/** A page, and what went wrong on it or left it. */
export interface WatchedPage {
  readonly page: Page;
  /** messages of the console that are no plain output, errors of scripts, dialogs */
  readonly faults: string[];
  /** the addresses that it asked for */
  readonly asked: string[];
}

export async function openPage(
  browser: Browser,
  url: string,
  options: BrowserContextOptions = {},
): Promise<WatchedPage> {
  const page = await browser.newPage(options);
  const [faults, asked]: [string[], string[]] = [[], []];
  page.on('console', (message) => {
    if (message.type() !== 'log') faults.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`script: ${error.message}`));
  page.on('dialog', (dialog) => {
    faults.push(`dialog: ${dialog.message()}`);
    dialog.dismiss().catch(() => {});
  });
  page.on('request', (request) => asked.push(request.url()));
  await page.goto(url);
  return { page, faults, asked };
}
