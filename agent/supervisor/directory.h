// Where things are in a sandbox's directory. Pure.
#pragma once

#include <filesystem>
#include <string>

namespace agent::supervisor {

struct Directory {
  std::filesystem::path root;
  // Where jobs find these two; empty: in the root.
  std::filesystem::path workspace_place = {};
  std::filesystem::path home_place = {};

  std::string sandbox() const { return root.filename().native(); }  // its id
  std::filesystem::path workspace() const {
    return workspace_place.empty() ? root / "workspace" : workspace_place;
  }
  std::filesystem::path store() const { return root / "store.git"; }
  std::filesystem::path home() const { return home_place.empty() ? root / "home" : home_place; }
  std::filesystem::path logs() const { return root / "logs"; }
  std::filesystem::path journal(const std::string& job) const { return logs() / (job + ".log"); }
  std::filesystem::path in_use() const { return root / ".lock"; }
  std::filesystem::path socket() const { return root / "supervisor.sock"; }
  std::filesystem::path lock() const { return root / "supervisor.lock"; }
  std::filesystem::path ledger() const { return root / "supervisor.jobs"; }
  // Is there while a supervisor is, and after one that was killed.
  std::filesystem::path record() const { return root / "supervisor.json"; }
};

}  // namespace agent::supervisor
