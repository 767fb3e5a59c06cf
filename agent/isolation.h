// What this box lets sandboxes run in: decided once per sandbox, when it is made, and held to ever
// after. And the command line of a sandbox's supervisor, which follows from it.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/bubblewrap.h"
#include "agent/limits.h"
#include "agent/store.h"
#include "protocol/os/paths.h"
#include "protocol/wire/result.h"

namespace agent {

// automatic: bubblewrap where it works, else none.
enum class IsolationMode { automatic, bwrap, none };
// "auto", "bwrap", "none"; std::nullopt for any other word.
std::optional<IsolationMode> isolation_mode(std::string_view word);

using protocol::wire::result;

class Isolation {
 public:
  struct Settings {
    IsolationMode mode = IsolationMode::automatic;
    // Commands may do what the agent's account can, whoever sent them.
    bool trust_commands = false;
    std::vector<std::filesystem::path> exposed;  // what the box's owner gives to every sandbox
    std::filesystem::path program;               // the agent's
    std::filesystem::path bubblewrap = "bwrap";  // looked up in PATH
    std::filesystem::path scratch;               // where a directory may be made to try with
    protocol::os::Environment environment;       // the agent's
    std::function<std::size_t()> users;          // how many people may come in
  };

  // Tries bubblewrap unless the mode is `none`, and logs once when it does not work. Blocks.
  // Errc::unsupported: the mode is `bwrap` and it cannot be had; Errc::refused: several people may
  // come in, whom nothing would keep apart. Both are sentences.
  static result<Isolation> open(Settings settings);

  // Why there is no bubblewrap here, or that none was asked for; empty: it works.
  const std::string& why_not() const { return why_not_; }

  // What a sandbox runs in whose maker asks for `wanted` ("auto", "bwrap" or "none"): "bwrap" or
  // "none". Errc::bad_input, unsupported (no bubblewrap here), refused (this box does not allow
  // it).
  result<std::string> choose(const std::string& wanted) const;

  // What a sandbox runs in whose maker asks for nothing: "bwrap" or "none".
  std::string by_default() const { return works_ ? "bwrap" : "none"; }

  // The command line of the supervisor of this sandbox, which is held to its limits by this plan.
  // Of the descriptors that it is given, 3 is where bubblewrap writes its child's pid, and 4 the
  // other end of that. Errors as of choose: the box may have changed its mind since the sandbox was
  // made.
  result<std::vector<std::string>> supervise(const SandboxRecord& sandbox,
                                             const std::filesystem::path& directory,
                                             const LimitPlan& plan = {}) const;

 private:
  explicit Isolation(Settings settings) : settings_(std::move(settings)) {}
  result<void> allow_none() const;

  Settings settings_;
  Shut shut_;
  bool works_ = false;
  std::string why_not_;
};

}  // namespace agent
