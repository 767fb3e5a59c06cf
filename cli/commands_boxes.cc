#include "cli/commands_boxes.h"

#include "cli/command_runs.h"

namespace cli {

Command boxes_row() {
  const Option name{"name", "NAME", "the box"};
  const Option host{"host", "HOST[:PORT]", "where its agent listens (default port: 43215)"};
  const Option host_key{"host-key", "KEY",
                        "its host key (a line `ssh-ed25519 AAAA...` or SHA256:...): any other is "
                        "an error"};
  const Option via_ssh{"via-ssh", "HOST",
                       "reach it through its sshd: HOST as your own ssh knows it"};
  const Option agent{"agent", "PROGRAM",
                     "with --via-ssh: the agent's program there (default: sandbox-agent)"};
  const Option state{"state", "DIR",
                     "with --via-ssh: that agent's state directory (default: "
                     "~/.local/state/sandbox-agent)"};
  Command row{"boxes",
              "List boxes and manage them",
              "boxes [VERB] [OPTION...]",
              "Without a verb: list.",
              {},
              0,
              false,
              run_boxes_list};
  row.verbs = {
      {"boxes list",
       "List boxes, who has reserved them and who uses them",
       "boxes list",
       "Asks all of them at once, each for a few seconds at most. The local box is in the list "
       "when "
       "its agent runs.",
       {},
       0,
       false,
       run_boxes_list},
      {"boxes add",
       "Add a box and keep its host key",
       "boxes add --name NAME --host HOST[:PORT] | --via-ssh HOST",
       "Connects, keeps the host key and prints it. Asks nothing.",
       {name, host, host_key, via_ssh, agent, state},
       0,
       false,
       run_boxes_add},
      {"boxes install",
       "Put the agent on a machine and add it as a box",
       "boxes install NAME [--host SSH_HOST] [OPTION...]",
       "Copies this machine's sandbox-agent there with your own ssh, which has to get\n"
       "there without a question, lets your key in and starts the agent: as a service\n"
       "where systemd keeps one for the account, else as a daemon. Never becomes root.\n"
       "What is there already stays as it is: it can be run again.",
       {{"host", "SSH_HOST", "the machine, as your own ssh knows it (default: NAME)"},
        {"slots", "N", "how many commands it runs at once (default: 1; 0: no limit)"},
        {"listen", "HOST[:PORT]", "clients connect to the agent there, not through sshd"}},
       1,
       false,
       run_boxes_install},
      {"boxes edit",
       "Change a box's address, host key or name",
       "boxes edit --name NAME OPTION...",
       "A new address has to show the host key that is kept, or the one of --host-key. With "
       "--host-key alone\nthe box is asked whether that is its key now.",
       {name,
        {"new-name", "NAME", "what it is called from now on"},
        host,
        host_key,
        via_ssh,
        agent,
        state},
       0,
       false,
       run_boxes_edit},
      {"boxes delete",
       "Forget a box",
       "boxes delete --name NAME --yes",
       "Changes nothing on the box itself.",
       {name, {"yes,y", nullptr, "do not ask"}},
       0,
       false,
       run_boxes_delete},
      {"boxes export",
       "Write the list of boxes as JSON",
       "boxes export [FILE]",
       "To stdout without FILE. Host keys go along.",
       {{"force", nullptr, "replace FILE"}},
       1,
       false,
       run_boxes_export},
      {"boxes import",
       "Read boxes from a list that export wrote",
       "boxes import [FILE]",
       "From stdin without FILE. All of them, or none when one is known already as another.",
       {{"force", nullptr, "replace boxes that are known already"}},
       1,
       false,
       run_boxes_import},
      {"boxes lock",
       "Reserve a box: nobody else's commands run there",
       "boxes lock --box NAME [--reason TEXT]",
       "Lasts until it is unlocked, whatever happens to this machine or the box's agent. What runs "
       "there goes on;\nyour own commands run as before.",
       {{"reason", "TEXT", "what for: others are shown it"}},
       0,
       false,
       run_boxes_lock},
      {"boxes unlock",
       "End the reservation of a box",
       "boxes unlock --box NAME [--force]",
       "",
       {{"force", nullptr, "though it is somebody else's: they are told"}},
       0,
       false,
       run_boxes_unlock},
  };
  return row;
}

}  // namespace cli
