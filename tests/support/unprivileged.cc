#include "tests/support/unprivileged.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <system_error>

namespace test {

namespace {

// Of the calling thread; glibc has no wrapper.
struct Capabilities {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};

  bool read() { return ::syscall(SYS_capget, &header, data) == 0; }
  bool write() { return ::syscall(SYS_capset, &header, data) == 0; }
};

constexpr std::uint32_t kPassesOverModes =
    CAP_TO_MASK(CAP_DAC_OVERRIDE) | CAP_TO_MASK(CAP_DAC_READ_SEARCH);

}  // namespace

Unprivileged::Unprivileged() {
  if (::geteuid() != 0) return;
  Capabilities capabilities;
  // A program would get its power back: root's do.
  const int before = ::prctl(PR_GET_SECUREBITS);
  if (!capabilities.read() || ::prctl(PR_SET_SECUREBITS, before | SECBIT_NOROOT) != 0) {
    throw std::system_error(errno, std::generic_category(), "putting root's power aside");
  }
  securebits_ = before;
  for (int i = 0; i < 2; ++i) effective_[i] = capabilities.data[i].effective;
  capabilities.data[0].effective &= ~kPassesOverModes;
  if (!capabilities.write()) std::abort();
}

Unprivileged::~Unprivileged() {
  if (securebits_ < 0) return;
  Capabilities capabilities;
  // Whatever came after would be tested in vain.
  if (!capabilities.read()) std::abort();
  for (int i = 0; i < 2; ++i) capabilities.data[i].effective = effective_[i];
  if (!capabilities.write() || ::prctl(PR_SET_SECUREBITS, securebits_) != 0) std::abort();
}

}  // namespace test
