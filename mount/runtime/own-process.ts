/** What keeper and server change about a process of Node, so that nothing from outside ends it. To be imported before all else. */

// SIGUSR1 has Node open its debugger on a local port, where whoever is on the machine may run code as this process's user.
// A listener takes its place.
process.on('SIGUSR1', () => {});

// Both are the bus's log. Where its file system is full an error of a write would end the process.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
