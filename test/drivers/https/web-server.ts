/** A real web server for tests: nginx on a free port of this machine, which serves a directory. It is ended with the test. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { accepts, eventually, freePort, isInstalled } from '../../e2e/command.js';
import { standStill } from '../../e2e/stand-still.js';

const START_LIMIT_MS = 30_000;

/** Why tests with a web server cannot run; false: they can. */
export function whyNoWeb(...others: string[]): string | false {
  const missing = ['nginx', ...others].filter((program) => !isInstalled(program));
  return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
}

export interface WebWish {
  /** has server-cert.pem and server-key.pem; null: plain HTTP */
  readonly certificates?: string | null;
  /** lines of nginx's configuration for the server */
  readonly more?: string;
}

export class WebServer {
  readonly port: number;
  readonly #directory: string;
  readonly #scheme: string;
  #child: ChildProcess | null = null;

  private constructor(directory: string, port: number, scheme: string) {
    this.#directory = directory;
    this.port = port;
    this.#scheme = scheme;
  }

  /** @param directory for its files; what is in `www` there is served */
  static async start(directory: string, { certificates = null, more = '' }: WebWish = {}): Promise<WebServer> {
    mkdirSync(join(directory, 'www'), { recursive: true });
    const port = await freePort();
    const tls =
      certificates === null
        ? ''
        : `ssl_certificate ${certificates}/server-cert.pem; ssl_certificate_key ${certificates}/server-key.pem;`;
    const scratch = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path scratch;`);
    const text = `
      daemon off; master_process off; pid nginx.pid; error_log error.log;
      events {}
      http {
        access_log access.log; ${scratch.join(' ')} keepalive_requests 50;
        server { listen 127.0.0.1:${port}${certificates === null ? '' : ' ssl'}; root www; ${tls} ${more} }
      }`;
    writeFileSync(join(directory, 'nginx.conf'), text);
    const server = new WebServer(directory, port, certificates === null ? 'http' : 'https');
    await server.begin();
    return server;
  }

  url(path: string): string {
    return `${this.#scheme}://localhost:${this.port}/${path}`;
  }

  /** Starts it, also again. Resolves when it listens. */
  async begin(): Promise<void> {
    const words = ['-p', this.#directory, '-c', 'nginx.conf', '-e', join(this.#directory, 'error.log')];
    const child = spawn('nginx', words, { stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (text) => {
      said += String(text);
    });
    this.#child = child;
    await eventually('nginx listens', START_LIMIT_MS, async () => {
      if (child.exitCode !== null) throw new Error(`nginx ended: ${said}`);
      return await accepts(this.port);
    });
  }

  /** Lets it stand still. */
  async pause(): Promise<void> {
    await standStill(this.#child?.pid);
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  /** Kills it, and waits for its end. */
  async end(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }
}
