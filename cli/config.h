// .sandbox.yml: what a project asks for. Found by walking up to the project's root and no further;
// none is needed. Unknown keys and wrong types are errors that name file and line.
//
// It comes with the project, so somebody else may have written it. What reaches beyond the sandbox
// (box, isolation: none, sync.include) is obeyed only when the command line says it too, or when
// the user trusts the file with exactly this content (trusted_configs.h). `network: host` does not:
// it is what every sandbox has, and nothing else can ask for less.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/error.h"
#include "protocol/wire/messages.h"

namespace cli {

inline constexpr const char* kConfigName = ".sandbox.yml";

struct Config {
  std::filesystem::path file;  // absolute; empty: there is none
  std::string digest;          // of its bytes; to notice changes
  std::string sha256;          // of its bytes; for trust
  std::string box;             // empty: not set; and so on
  std::vector<std::string> setup;
  std::map<std::string, std::string> env;
  std::string shell;
  std::vector<std::string> includes;
  std::uint32_t depth = 50;
  std::string isolation;  // auto, bwrap, none or empty
  std::string network;    // host, none or empty
  protocol::wire::Limits limits;
  // Lines of the keys that need the command line's consent; 0: not there.
  int box_line = 0;
  int isolation_line = 0;
  int includes_line = 0;
};

// What the command line says about the same things.
struct Consent {
  std::string box;
  std::string isolation;
  std::vector<std::string> includes;
};

// `text` as the content of `file`. Throws UserError ("FILE:LINE: ...").
Config parse_config(std::string_view text, const std::filesystem::path& file);

// The file named on the command line (relative to `directory`), else the nearest .sandbox.yml from
// `directory` up to `root`, else none.
Config load_config(const std::string& named, const std::filesystem::path& directory,
                   const std::filesystem::path& root);

// What of a file reaches beyond the sandbox.
struct Reach {
  int line = 0;
  std::string what;    // "`box` (rig1)"
  std::string option;  // how the command line says it: "--box rig1"
};
// All that the command line does not say, too; in the order of their lines.
std::vector<Reach> reaching(const Config& config, const Consent& consent);

// The file asks for what nobody has consented to.
struct Untrusted : UserError {
  Untrusted(const Config& of, std::vector<Reach> what);
  Config config;
  std::vector<Reach> reaches;
};

// Throws Untrusted for what reaches beyond the sandbox without consent, unless `trusted`; then lays
// the command line over the file.
void apply_consent(Config& config, const Consent& consent, bool trusted = false);

// What `sandbox init` writes.
std::string config_template();

}  // namespace cli
