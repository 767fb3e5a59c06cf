// What the process was given: arguments, variables, directory, standard streams. Taken once in main
// and passed on as a value, so that nothing below reads it from the process.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace cli {

struct Environment {
  std::vector<std::string> arguments;  // without the program's name
  std::filesystem::path program;       // this executable, by real path
  std::map<std::string, std::string> variables;
  std::optional<std::filesystem::path>
      directory;  // the current one; std::nullopt when it was deleted
  bool stdin_open = true;
  bool stdout_open = true;
  bool stderr_open = true;
  bool stdin_is_terminal = false;
  bool stdout_is_terminal = false;
  bool stderr_is_terminal = false;

  // The variable's value; empty when it is unset.
  std::string get(const std::string& name) const;
};

// Of this process. Opens /dev/null in place of a closed standard stream, so that no other file can
// take its number.
Environment process_environment(int argc, char** argv);

// Where this user's files are. SANDBOX_STATE_DIR moves all of `state`.
struct Paths {
  std::filesystem::path state;   // $XDG_STATE_HOME/sandbox
  std::filesystem::path config;  // $XDG_CONFIG_HOME/sandbox

  std::filesystem::path storage() const { return state / "sandboxes.json"; }
  std::filesystem::path starters() const { return state / "starters"; }
  std::filesystem::path origins() const { return state / "origins"; }
  std::filesystem::path jobs() const { return state / "jobs"; }
  std::filesystem::path sessions() const { return state / "sessions"; }
  std::filesystem::path agent() const { return state / "agent"; }
  std::filesystem::path key() const { return config / "id_ed25519"; }
  std::filesystem::path boxes() const { return config / "boxes.json"; }
  std::filesystem::path trust() const { return config / "trust.json"; }
};
// HOME may be unset: the password database is asked then. Throws UserError when there is no home at
// all.
Paths find_paths(const Environment& environment);

// The user's name on this machine: SANDBOX_USER, else USER, LOGNAME or the password database's.
std::string user_name(const Environment& environment);

// Which CI job this process belongs to; empty: none (ci_identity.h).
std::string ci_scope(const Environment& environment);

// This machine's id: /etc/machine-id, else its host name.
std::string machine_id();

}  // namespace cli
