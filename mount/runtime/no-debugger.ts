/**
 * SIGUSR1 has Node open its debugger on a local port, where whoever is on the machine may run code as this process's user.
 * A listener takes its place. To be imported before all else.
 */
process.on('SIGUSR1', () => {});
