/** Runs fio on one vbd again and again until it is stopped: random writes, read back and compared. */
import { spawn } from 'node:child_process';
import type { Deeds, Findings } from './figures.js';

const MIB = 1 << 20;
export const DISK_BYTES = 16 * MIB;

export interface Work {
  readonly path: string;
  /** how many parts of DISK_BYTES the disk has: each run takes one */
  readonly parts: number;
  readonly blockBytes: number;
}

export class Verifier {
  #ending = false;
  readonly #over: Promise<void>;

  constructor(work: Work, deeds: Deeds, findings: Findings) {
    const { path } = work;
    const loop = async (): Promise<void> => {
      while (!this.#ending) {
        const { status, text } = await runFio(work);
        if (status === 0) deeds.verified += 1;
        else {
          findings.errors.push(`fio on ${path} ended with ${status}: ${text.slice(0, 500)}`);
          if (/verify: bad|verify failed/i.test(text)) findings.mismatches += 1;
        }
      }
    };
    this.#over = loop();
  }

  /** Resolves when the current run has ended. */
  async end(): Promise<void> {
    this.#ending = true;
    await this.#over;
  }
}

function runFio({ path, parts, blockBytes }: Work): Promise<{ status: number | null; text: string }> {
  const args = [
    ...['--name=torture', `--filename=${path}`, '--allow_file_create=0', '--rw=randwrite', `--bs=${blockBytes}`],
    ...[`--offset=${Math.floor(Math.random() * parts) * DISK_BYTES}`, `--size=${DISK_BYTES}`],
    ...['--iodepth=16', '--direct=1', '--ioengine=libaio', '--minimal'],
    ...['--verify=crc32c', '--verify_fatal=1', '--verify_backlog=64'],
    `--randseed=${Math.floor(Math.random() * 1e9)}`,
  ];
  return new Promise((resolve) => {
    const child = spawn('fio', args, { stdio: ['ignore', 'ignore', 'pipe'], cwd: '/' });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    child.on('error', (error) => resolve({ status: null, text: error.message }));
    child.on('close', (status) => resolve({ status, text }));
  });
}
