// How many files this process may have open at once, which for a server is how many clients.
#pragma once

#include <sys/resource.h>

#include <optional>

namespace protocol::os {

// As many as the system lets it have, up to 65536. What Process starts gets what there was before:
// programs that use select() break with more. Once, before anything is started.
void raise_descriptor_limit();

// While one lives, children get the limit that there was before it was raised. It holds for this
// process, too: let it be no longer than the start of a child.
class ChildDescriptorLimit {
 public:
  ChildDescriptorLimit();
  ~ChildDescriptorLimit();
  ChildDescriptorLimit(const ChildDescriptorLimit&) = delete;
  ChildDescriptorLimit& operator=(const ChildDescriptorLimit&) = delete;

 private:
  std::optional<rlimit> raised_;
};

}  // namespace protocol::os
