/** `fusetap web`, as tests run it. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { request } from 'node:http';
import type { Test } from 'tap';
import type { Bench } from './fixtures.js';

export interface RunningWeb {
  readonly child: ChildProcess;
  /** as it was printed */
  readonly url: string;
}

/** Starts it, and waits for its URL. It is ended after the test. */
export async function startWeb(t: Test, bench: Bench, ...options: string[]): Promise<RunningWeb> {
  const child = bench.startFusetap(['web', ...options]);
  t.teardown(() => {
    child.kill('SIGCONT');
    child.kill('SIGTERM');
  });
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  child.stdout?.setEncoding('utf8');
  const ended = once(child, 'exit').then(() => Promise.reject(new Error(`fusetap web has ended: ${errors}`)));
  const line = new Promise<string>((resolve) => child.stdout?.once('data', (text: string) => resolve(text)));
  const url = (await Promise.race([line, ended])).trimEnd();
  ended.catch(() => {});
  return { child, url };
}

export interface Answer {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly text: string;
}

/** Asks as no browser would: with any Host, Origin and method. */
export function ask(url: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { headers, method, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part: string) => {
        text += part;
      });
      response.on('error', reject);
      response.on('end', () => resolve({ status: response.statusCode ?? 0, headers: response.headers, text }));
    });
    asked.on('error', reject).end();
  });
}
