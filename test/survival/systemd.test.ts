/**
 * A bus where systemd runs: it outlives the unit of the command that started it, and at a shutdown it goes on until nobody
 * uses it. A real systemd boots and shuts down for each test.
 */
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { execute, isInstalled, output } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { AS_USER, USER, USER_ID } from '../e2e/runners.js';
import { type Boot, type Booted, bootSystemd, whyNoSystemd } from './small-systemd.js';

t.setTimeout(900_000);
const skip = whyNot() || whyNoSystemd() || (isInstalled('mkfs.ext4') ? false : 'mkfs.ext4 is not installed');

async function boot(t: Test, what: Boot): Promise<Booted & { directory: string }> {
  const directory = await mkdtemp(join(tmpdir(), 'systemd-'));
  t.teardown(() => rm(directory, { recursive: true, force: true }));
  const booted = await bootSystemd(directory, what);
  // a power-off by reboot(2) ends the init of a pid namespace with SIGINT
  t.equal(booted.signal, 'SIGINT', booted.out + booted.stderr);
  return { ...booted, directory };
}

/** The SHA-256 of a file in the file system of an image. */
async function sumIn(t: Test, image: string, name: string): Promise<string> {
  const check = await execute('fsck.ext4', ['-fn', image]);
  t.equal(check.status, 0, check.stdout);
  const directory = `${image}.mount`;
  await mkdir(directory);
  await output('mount', ['-o', 'loop,ro', image, directory]);
  try {
    const hash = createHash('sha256');
    for await (const chunk of createReadStream(join(directory, name))) hash.update(chunk as Buffer);
    return hash.digest('hex');
  } finally {
    await output('umount', [directory]);
  }
}

/** 300 MB that are not on the disk yet when the machine goes down. */
const WRITE = 'head -c 300M /dev/urandom > /mnt/f && sha256sum < /mnt/f | cut -d" " -f1 > /run/t/sum';

t.test('a bus outlives the scope and the service of the command that started it', { skip }, async (t) => {
  const { out } = await boot(t, {
    units: {
      'caller.service':
        '[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/run/t/bin/fusetap attach --bus two /run/t/b.img\n',
    },
    script: `
      truncate -s 64M /run/t/a.img /run/t/b.img
      systemd-run --quiet --scope --unit=session sh -c 'fusetap attach /run/t/a.img; exec sleep infinity' &
      until fusetap ls --quiet 2> /dev/null | grep -q xvda; do sleep 0.1; done
      systemctl start caller.service
      systemctl stop session.scope caller.service
      head -c 1M /dev/urandom > /run/t/data
      dd if=/run/t/data of=/run/fusetap/bus/0/xvda conv=notrunc,fsync status=none
      dd if=/run/t/data of=/run/fusetap/bus/two/xvda conv=notrunc,fsync status=none
      fusetap ls --buses --json | grep '"unit"'
      fusetap show | grep unit
      kill -9 $(fusetap show --json | sed -n 's/.*"serverPid": \\([0-9]*\\).*/\\1/p' | head -1)
      cmp /run/t/data --bytes 1M /run/fusetap/bus/0/xvda && echo same
      systemctl show --property=ControlGroup --value fusetap-bus-0.scope
      fusetap stop --all
      systemctl is-active fusetap-bus-0.scope || true
    `,
  });
  t.match(out, /"unit": "fusetap-bus-0.scope"/);
  t.match(out, /"unit": "fusetap-bus-two.scope"/);
  t.match(out, /^unit +fusetap-bus-0.scope$/m);
  t.match(out, /^same$/m, 'the next server is in the scope too');
  t.match(out, /^\/system.slice\/fusetap-bus-0.scope$/m);
  t.match(out, /^inactive$/m, 'the scope ends with its bus');
});

t.test('fusetap run, and a caller that says so, stay in the unit of the caller', { skip }, async (t) => {
  const { out } = await boot(t, {
    script: `
      truncate -s 64M /run/t/a.img
      fusetap run /run/t/a.img -- sh -c 'grep -H . /proc/self/cgroup; fusetap ls --buses'
      FUSETAP_SCOPE=no fusetap attach --bus kept /run/t/a.img
      fusetap show --bus kept | grep unit
      FUSETAP_RUNTIME_DIR=/run/other fusetap attach /run/t/a.img 2>&1 || true
      fusetap stop --bus kept
      FUSETAP_RUNTIME_DIR=/run/other fusetap attach /run/t/a.img
      FUSETAP_RUNTIME_DIR=/run/other fusetap ls --buses
      FUSETAP_RUNTIME_DIR=/run/other fusetap stop
    `,
  });
  t.match(out, /^unit +job.service$/m);
  t.match(out, / job.service\n/, 'that of run');
  t.match(out, / fusetap-bus-0-[0-9a-f]{8}.scope$/m, 'each runtime directory has scopes of its own');
});

for (const [how, mount] of [
  ['mount -o loop', 'mount -o loop $vbd /mnt'],
  ['a loop device that stays', 'loop=$(losetup --find --show $vbd); echo $loop > /run/t/loop; mount $loop /mnt'],
  ['fusetap mount', 'fusetap mount $vbd /mnt'],
] as const) {
  t.test(`at a shutdown, what was written to a file system mounted by ${how} is whole`, { skip }, async (t) => {
    const { directory, out } = await boot(t, {
      script: `
        truncate -s 400M /run/t/a.img
        vbd=$(systemd-run --quiet --scope fusetap attach /run/t/a.img)
        mkfs.ext4 -q $vbd
        ${mount}
        ${WRITE}
      `,
    });
    const image = join(directory, 'a.img');
    const loop = await output('cat', [join(directory, 'loop')]).catch(() => '');
    // systemd in a container leaves the loop devices of the machine alone
    if (loop !== '') await output('losetup', ['--detach', loop.trim()]);
    t.equal(await sumIn(t, image, 'f'), readFileSync(join(directory, 'sum'), 'utf8').trim(), out);
  });
}

t.test('at a shutdown, guests go before the bus that has their disks', { skip }, async (t) => {
  const { directory, out } = await boot(t, {
    units: {
      'xendomains.service': [
        ...['[Service]', 'Type=oneshot', 'RemainAfterExit=yes', 'ExecStart=/bin/true'],
        // a guest that writes for some time after it was told to end
        `ExecStop=/bin/sh -c 'sleep 2; dd if=/run/t/data of=/run/fusetap/bus/0/xvda conv=notrunc,fsync; echo guest $$?'`,
        ...['StandardOutput=append:/run/t/out', 'StandardError=append:/run/t/out'],
      ].join('\n'),
    },
    script: `
      truncate -s 64M /run/t/a.img
      head -c 1M /dev/urandom > /run/t/data
      systemctl start xendomains.service
      fusetap attach /run/t/a.img
    `,
  });
  t.match(out, /^guest 0$/m);
  await output('cmp', ['--bytes', '1M', join(directory, 'data'), join(directory, 'a.img')]);
});

t.test('a bus whose scope is stopped waits for its users', { skip }, async (t) => {
  const { out } = await boot(t, {
    script: `
      truncate -s 64M /run/t/a.img
      vbd=$(fusetap attach /run/t/a.img)
      mkfs.ext4 -q $vbd; mount -o loop $vbd /mnt; echo kept > /mnt/f
      fusetap log -f > /run/t/log &
      systemctl stop fusetap-bus-0.scope &
      until grep -q 'awaits-users' /run/t/log; do sleep 0.1; done
      echo more >> /mnt/f; sync /mnt/f; cat /mnt/f
      umount /mnt
      wait
      cat /run/t/log
      debugfs -R 'cat f' /run/t/a.img 2> /dev/null
    `,
  });
  t.match(out, /awaits-users.*\/mnt/);
  t.match(out, /ended .*durable=true/);
  t.match(out, /kept\nmore\n$/);
});

t.test('where no scope can be made, a bus is in the unit of the caller', { skip }, async (t) => {
  const { out } = await boot(t, {
    script: `
      truncate -s 8M /run/t/a.img
      # as if systemd-run was not installed
      mount --bind /dev/null /usr/bin/systemd-run
      fusetap attach /run/t/a.img; fusetap show | grep unit; fusetap stop
      umount /usr/bin/systemd-run
      # a scope of that name is there
      systemd-run --quiet --scope --unit=fusetap-bus-0.scope sleep 30 &
      until systemctl -q is-active fusetap-bus-0.scope; do sleep 0.1; done
      fusetap attach /run/t/a.img; fusetap show | grep unit; fusetap stop
      # the pids of this namespace are not those that systemd knows
      unshare --pid --fork --kill-child sh -c 'fusetap attach /run/t/a.img; fusetap show | grep unit; fusetap stop' || true
      FUSETAP_USERS_LIMIT_MS=60s fusetap attach /run/t/a.img || echo refused $?
    `,
  });
  t.match(out, /^unit +fusetap-bus-0-[0-9a-f]{8}.scope$/m);
  t.equal(out.match(/^unit +job.service$/gm)?.length, 2, out);
  t.match(out, /FUSETAP_USERS_LIMIT_MS is not a number of milliseconds: '60s'.*\nrefused 2\n/);
});

t.test('a bus in a service waits for its users no longer than the stop of the service allows', { skip }, async (t) => {
  const { out } = await boot(t, {
    units: {
      'kept.service': [
        ...['[Service]', 'Type=oneshot', 'RemainAfterExit=yes', 'TimeoutStopSec=30', 'Environment=FUSETAP_SCOPE=no'],
        'ExecStart=/run/t/bin/fusetap attach /run/t/a.img',
      ].join('\n'),
    },
    script: `
      truncate -s 8M /run/t/a.img
      systemctl start kept.service
      exec 3<> /run/fusetap/bus/0/xvda; printf written >&3
      fusetap show | grep unit
      # 75 s for the flushes do not fit into 30 s: no time is left for users
      systemctl stop kept.service
      head -c 7 /run/t/a.img; echo
      systemctl show --property=Result kept.service
    `,
  });
  t.match(out, /^unit +kept.service$/m);
  t.match(out, /^written\nResult=success$/m, 'it was not killed');
});

t.test(
  'the units: at a shutdown, a bus and a vbd of services do not end before what is mounted',
  { skip },
  async (t) => {
    const { directory, out } = await boot(t, {
      script: `
      mkdir -p /run/t/etc && mount --bind /run/t/etc /etc/fusetap 2> /dev/null || { mkdir -p /etc/fusetap; mount --bind /run/t/etc /etc/fusetap; }
      truncate -s 400M /run/t/a.img; truncate -s 64M /run/t/b.img
      mkfs.ext4 -q /run/t/a.img; mkfs.ext4 -q /run/t/b.img
      echo SPEC=/run/t/a.img > /etc/fusetap/xvda.conf
      mkdir /run/m; echo SPEC=/run/t/b.img > /etc/fusetap/run-m.mount.conf
      systemctl start fusetap-vbd@xvda fusetap-mount@run-m
      echo in a unit > /run/m/f
      systemctl stop fusetap-mount@run-m
      debugfs -R 'cat f' /run/t/b.img 2> /dev/null
      mount -o loop /run/fusetap/bus/0/xvda /mnt
      ${WRITE}
      date +%s > /run/t/down
    `,
    });
    t.match(out, /^in a unit$/m);
    t.equal(await sumIn(t, join(directory, 'a.img'), 'f'), readFileSync(join(directory, 'sum'), 'utf8').trim(), out);
  },
);

/** The manager of an ordinary user, as the system starts it at a login. */
const USER_MANAGER = {
  [`user@${USER_ID}.service`]: [
    ...['[Service]', 'Type=notify', `User=${USER_ID}`, 'Delegate=yes', `Slice=user-${USER_ID}.slice`],
    ...[`Environment=XDG_RUNTIME_DIR=/run/user/${USER_ID} SYSTEMD_UNIT_PATH=/usr/lib/systemd/user HOME=/tmp`],
    ...['ExecStart=/lib/systemd/systemd --user', 'KillMode=mixed', 'TimeoutStopSec=120'],
  ].join('\n'),
};

const noUser = skip || USER.whyNot();
t.test(
  'the bus of a user outlives a unit of the manager of the user, and ends with the manager',
  { skip: noUser },
  async (t) => {
    const user = await USER.enter();
    t.teardown(() => user.end());
    const { out } = await boot(t, {
      units: USER_MANAGER,
      script: `
      chmod 755 /run/t
      mkdir -p /run/user/${USER_ID} && chown ${USER_ID} /run/user/${USER_ID}
      truncate -s 64M /run/a.img; chown ${USER_ID} /run/a.img
      systemctl start user@${USER_ID}.service
      as_user() { ${AS_USER.join(' ')} env XDG_RUNTIME_DIR=/run/user/${USER_ID} "$@"; }
      as_user systemd-run --user --quiet --wait --unit=caller --setenv=PATH=$PATH --property=RemainAfterExit=no fusetap attach /run/a.img
      as_user fusetap show | grep unit
      vbd=/run/user/${USER_ID}/fusetap/bus/0/xvda
      echo written | as_user dd of=$vbd conv=notrunc status=none
      head -c 8 $vbd 2> /dev/null || as_user head -c 8 $vbd
      systemctl show --property=ControlGroup --value user@${USER_ID}.service
      systemctl stop user@${USER_ID}.service
      as_user fusetap ls --buses
      head -c 8 /run/a.img
      # without a manager, the bus stays where it is
      as_user fusetap attach /run/a.img
      as_user fusetap show | grep unit
      as_user fusetap stop
    `,
    });
    t.match(out, /^unit +fusetap-bus-0.scope$/m);
    t.equal(out.match(/^written$/gm)?.length, 2, out);
    t.match(out, /^BUS .*\nwritten$/m, 'no bus is left');
    t.match(out, /^unit +job.service$/m);
  },
);
