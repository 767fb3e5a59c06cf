// A machine whose programs run as somebody who is not root: for what root may do anyhow, or is not
// counted for.
#pragma once

#include "tests/support/system.h"

namespace test {

class OtherUser {
 public:
  // Gives the machine's directories to them. Requires that nothing has run on it.
  explicit OtherUser(Machine& machine);
  // False: the test runs as root, and nobody else can run the programs here.
  bool works();
  // The CLI with these arguments, as them, or as who runs the test where that is not root.
  Ended run(const Words& arguments);

 private:
  Machine& machine_;
  Words as_them_;
};

}  // namespace test
