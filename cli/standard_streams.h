// A command's streams on this process's stdin, stdout and stderr. The descriptors are shared with
// whoever started us, so their flags are not changed.
#pragma once

#include <memory>
#include <optional>

#include "cli/command_streams.h"
#include "cli/output.h"
#include "protocol/os/fd_stream.h"
#include "protocol/os/pty.h"

namespace cli {

class StandardStreams : public CommandStreams {
 public:
  struct Options {
    bool raw = false;  // a command with a terminal: ours becomes raw while it runs
    int input = 0;     // -1: none
    int output = 1;    // setup commands: 2; -1 (closed): what comes is thrown away
    int error = 2;     // the same
  };
  StandardStreams(protocol::os::executor executor, Output& output, Options options);

  void begin() override;
  void end() override;
  protocol::os::awaitable<protocol::wire::result<void>> write(protocol::wire::FrameKind stream,
                                                              std::string bytes) override;
  protocol::os::awaitable<std::optional<std::string>> read_input() override;

 private:
  Output& output_;
  Options options_;
  std::optional<protocol::os::RawTerminal> raw_;
  std::unique_ptr<protocol::os::FdStream> in_, out_, error_;
};

// Is this descriptor closed for reading, or /dev/null? Then there is no input to send.
bool has_input(int fd);

}  // namespace cli
