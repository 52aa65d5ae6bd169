/** Protects keeper and server, which are Node processes, from outside. Import it before everything else. */

// On SIGUSR1 Node opens its debugger on a local port: any local user could then run code as the user of this process.
// A listener replaces that behaviour.
process.on('SIGUSR1', () => {});

// Both streams are the log of the bus. Without a listener, a failed write (a full file system) would end the process.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
