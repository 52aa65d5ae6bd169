/** The reference of the library can be made from its docstrings, and has no gap. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';

const ROOT = fileURLToPath(new URL('../../../', import.meta.url));

t.setTimeout(300_000);

t.test('typedoc has nothing to complain of', async (t) => {
  const args = ['node_modules/typedoc/bin/typedoc', '--emit', 'none', '--treatWarningsAsErrors'];
  const output = await new Promise<string>((resolve) => {
    execFile(process.execPath, args, { cwd: ROOT }, (error, stdout, stderr) => {
      resolve(error === null ? '' : `${stdout}${stderr}`);
    });
  });
  t.equal(output, '');
});
