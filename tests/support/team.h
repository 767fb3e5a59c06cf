// Two people who share a box with one slot: alice and bob, with a machine, a key and a project
// each.
#pragma once

#include "tests/support/shared_box.h"
#include "tests/support/system.h"

namespace test {

struct Team {
  // Their sandboxes are made, and SANDBOX_BOX names the box for both.
  explicit Team(Words box_options = {"--slots", "1"},
                std::map<std::string, std::string> box_environment = {});

  SharedBox box;
  Machine alice;
  Machine bob;

  // A project and the box for one more machine; no sandbox yet.
  void join(Machine& machine, const std::string& user);
  // Starts a command that goes on until it is signalled or destroyed.
  Running hold(Machine& machine, const Words& options = {});
  // Ends it as Ctrl+C does.
  static Ended end(Running& running);
};

// The line of `text` that begins so; empty when there is none.
std::string line_with(const std::string& text, const std::string& beginning);
std::vector<std::string> lines_of(const std::string& text);
bool has(const std::string& text, const std::string& part);

}  // namespace test
