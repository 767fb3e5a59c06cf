#include "protocol/os/descriptor_limit.h"

#include <algorithm>

namespace protocol::os {

namespace {

constexpr rlim_t kMost = 65536;

std::optional<rlimit>& before() {
  static std::optional<rlimit> limit;
  return limit;
}

}  // namespace

void raise_descriptor_limit() {
  rlimit limit = {};
  if (before() || ::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  rlimit raised = limit;
  raised.rlim_cur = std::min(limit.rlim_max, kMost);
  if (raised.rlim_cur > limit.rlim_cur && ::setrlimit(RLIMIT_NOFILE, &raised) == 0)
    before() = limit;
}

ChildDescriptorLimit::ChildDescriptorLimit() {
  rlimit now = {};
  if (!before() || ::getrlimit(RLIMIT_NOFILE, &now) != 0) return;
  if (::setrlimit(RLIMIT_NOFILE, &*before()) == 0) raised_ = now;
}

ChildDescriptorLimit::~ChildDescriptorLimit() {
  if (raised_) ::setrlimit(RLIMIT_NOFILE, &*raised_);
}

}  // namespace protocol::os
