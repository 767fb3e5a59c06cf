#include "tests/support/other_user.h"

#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "tests/support/places.h"

namespace test {

namespace fs = std::filesystem;

OtherUser::OtherUser(Machine& machine) : machine_(machine) {
  if (::geteuid() != 0) {
    return;
  }
  constexpr uid_t kNobody = 65534;
  as_them_ = {"setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"};
  fs::permissions(machine.root(), fs::perms::all);
  for (const char* name : {"home", "state", "config", "p"}) {
    auto directory = machine.root() / name;
    fs::create_directories(directory);
    if (::chown(directory.c_str(), kNobody, kNobody) != 0) {
      throw std::system_error(errno, std::generic_category(), directory.string());
    }
  }
}

bool OtherUser::works() { return run({"--version"}).status == 0; }

Ended OtherUser::run(const Words& arguments) {
  Words words = as_them_;
  words.push_back(SANDBOX_BIN_DIR "/sandbox");
  words.insert(words.end(), arguments.begin(), arguments.end());
  return machine_.run_program(words);
}

}  // namespace test
