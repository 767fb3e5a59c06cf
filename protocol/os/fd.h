// A file descriptor that closes itself. All descriptors of this project are close-on-exec.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "protocol/wire/result.h"

namespace protocol::os {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  ~Fd() { reset(); }

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset();

 private:
  int fd_ = -1;
};

struct Pipe {
  Fd read, write;
};
wire::result<Pipe> make_pipe();  // close-on-exec, both ends blocking

// Copies what is left of `from` to `to`. Never holds more than a small buffer.
wire::result<void> copy_bytes(int from, int to);
wire::result<void> write_all(int fd, std::string_view bytes);

// The Failure of an errno value: no_space, denied, not_found, exists, io ..., with `what` and the
// system's words.
wire::Failure errno_failure(int error, const std::string& what);

}  // namespace protocol::os
