// A real sshd of the test's own on the loopback: own host key, own configuration, and an ssh that
// knows it under a name. Commands run there in an empty home directory.
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "protocol/os/process.h"
#include "tests/support/system.h"

namespace test {

class Sshd {
 public:
  // Listens when this returns. Throws when this system has no sshd.
  explicit Sshd(std::string host = "far");
  ~Sshd();
  Sshd(const Sshd&) = delete;

  // Makes that machine's `ssh HOST` come here, as ourselves.
  void introduce(Machine& machine);
  // More of the client's configuration, "ProxyJump other" say; before introduce().
  void add_client_option(const std::string& line) { client_options_ += "  " + line + "\n"; }
  const std::string& host() const { return host_; }
  std::filesystem::path home() const { return root_ / "home"; }
  std::string log() const { return file_text(root_ / "sshd.log"); }
  int port() const { return port_; }
  void stop();

 private:
  std::string host_;
  std::string client_options_;
  std::filesystem::path root_;
  int port_ = 0;
  std::optional<protocol::os::Process> process_;
};

}  // namespace test
