// For a test about files that may not be read or written: as root nothing would stop it.
#pragma once

#include <cstdint>

namespace test {

// For its lifetime permission bits mean for this thread, and for the threads and programs that it
// starts, what they mean for other people: root's power to pass over them is put aside. Files that
// root owns are its own by their owner's bits. Nothing changes for who is not root. Throws when the
// system does not let it.
class Unprivileged {
 public:
  Unprivileged();
  ~Unprivileged();
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  int securebits_ = -1;  // as they were; -1: nothing was changed
  std::uint32_t effective_[2] = {};
};

}  // namespace test
