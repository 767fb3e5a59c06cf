// What `boxes install` and `update` run on a box, as POSIX shell (remote_shell.h runs it, and says
// what `say` is). The scripts need no more than sh and the basic utilities, change nothing but what
// is below the account's home, and never become root. They leave out nothing that they saw go
// wrong: what was to be expected is said as `problem`, with lines of `why`.
#pragma once

#include <string>

namespace cli {

// What is there. Says: system, machine, os, home, program, state; git (its version line); sum (of
// the program, where there is one); serve (lines of the script that starts the agent); and of an
// agent that runs: agent (its agent.json), pid, running (its program's sum), service (yes: the
// service manager keeps it).
std::string look_script();

// Takes the program from stdin, tries it, and puts it in its place in one step; the one before
// stays beside it as `.previous`. Values: sum, place (yes; no: it is only tried).
// Says version; or problem: transfer (it did not arrive whole); place (there is no room for it); or
// cannot_run, with `needs`, lines of the dynamic linker.
std::string put_script();

// Lets a key in, and starts the agent if none runs: as a service where the service manager keeps it
// beyond the login, else as a daemon. Values: user, key, serve (the script that starts it), unit
// (the service's).
// Says authorized, agent, pid, service; or problem: authorize, start. no_linger: there is a service
// manager, but it would end the agent with the last login.
std::string start_script();

// Ends the agent `old` and starts the program that is in place; if that one does not come to
// listen, the one before is put back and started. Values: old (a pid), back (yes: the one before is
// put back at once).
// Says agent, pid, service; or problem: other (another agent runs than `old`; nothing was done),
// start, with rolled_back (yes, no).
std::string hand_over_script();

}  // namespace cli
