// Which configuration files may reach beyond the sandbox: the user has said so of this file with
// exactly this content (SHA-256). trust.json in the configuration directory, 0600, replaced in one
// step under a lock of its own.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cli/config.h"
#include "cli/environment.h"

namespace cli {

struct TrustedConfig {
  std::filesystem::path file;
  std::string sha256;
  std::string since;  // RFC 3339, UTC
};

class TrustedConfigs {
 public:
  explicit TrustedConfigs(const Paths& paths) : file_(paths.trust()) {}

  // All throw UserError when the file is damaged, or when others may have written it.
  std::vector<TrustedConfig> all() const;
  bool trusts(const Config& config) const;
  void add(const Config& config);
  // False: it was not there.
  bool remove(const std::filesystem::path& file);

 private:
  template <class Change>
  void change(const Change& change);
  std::filesystem::path file_;
};

}  // namespace cli
