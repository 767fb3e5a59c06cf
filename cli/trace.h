// --trace: each message on stderr as it is sent (>) and answered (<), in order. Values of variables
// are left out.
#pragma once

#include <cstdint>
#include <string>

#include "cli/output.h"
#include "protocol/wire/messages.h"

namespace cli {

class Trace {
 public:
  Trace(Output& output, bool on) : output_(output), on_(on) {}

  void sent(std::uint32_t request, const protocol::wire::Message& message);
  void received(std::uint32_t request, const protocol::wire::Message& message);
  void event(const std::string& text);  // "connected to ..."

 private:
  Output& output_;
  bool on_;
};

// "> 1 __rwx_sandbox_lock_requested__ {...}"
std::string trace_line(char direction, std::uint32_t request,
                       const protocol::wire::Message& message);

}  // namespace cli
