#include "protocol/os/run.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "protocol/os/child_end.h"
#include "protocol/os/signals.h"

namespace protocol::os {

using wire::Errc;
using wire::Failure;

namespace {

constexpr std::size_t kKeptError = 64 * 1024;

void set_nonblocking(int fd) { ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK); }

// Reads what is there, at most 2 MiB, which is more than a pipe holds. False at the end.
bool drain(int fd, std::string& into) {
  std::array<char, 64 * 1024> buffer;
  for (int turn = 0; turn < 32; ++turn) {
    ssize_t count = ::read(fd, buffer.data(), buffer.size());
    if (count > 0) {
      into.append(buffer.data(), static_cast<std::size_t>(count));
      if (static_cast<std::size_t>(count) < buffer.size()) return true;
    } else if (count < 0 && errno == EINTR) {
      continue;
    } else {
      return count < 0 && errno == EAGAIN;
    }
  }
  return true;
}

}  // namespace

result<Output> run(Spawn spawn, std::string_view input, std::size_t max_output) {
  ignore_sigpipe();
  Pipe in, out, err;
  auto collect = [](int& fd, Pipe& pipe, bool ours_reads) -> result<void> {
    auto made = make_pipe();
    if (!made) return made.error();
    pipe = std::move(*made);
    fd = ours_reads ? pipe.write.get() : pipe.read.get();
    set_nonblocking(ours_reads ? pipe.read.get() : pipe.write.get());
    return {};
  };
  if (spawn.stdin_fd < 0 && !input.empty())
    if (auto made = collect(spawn.stdin_fd, in, false); !made) return made.error();
  if (spawn.stdout_fd < 0)
    if (auto made = collect(spawn.stdout_fd, out, true); !made) return made.error();
  if (spawn.stderr_fd < 0)
    if (auto made = collect(spawn.stderr_fd, err, true); !made) return made.error();

  auto process = Process::start(spawn);
  if (!process) return process.error();
  in.read.reset();
  out.write.reset();
  err.write.reset();

  Output output;
  Fd pidfd = open_pidfd(process->pid());
  bool ended = false;
  while (!ended) {
    std::array<pollfd, 4> fds = {{{in.write.get(), POLLOUT, 0},
                                  {out.read.get(), POLLIN, 0},
                                  {err.read.get(), POLLIN, 0},
                                  {pidfd.get(), POLLIN, 0}}};
    // Without a pidfd, closed streams are the sign that it may have ended.
    bool streams_open = in.write || out.read || err.read;
    if (!pidfd && !streams_open) break;
    int ready = ::poll(fds.data(), fds.size(), pidfd ? -1 : 20);
    if (ready < 0 && errno != EINTR) break;
    // Looked at before the last reading: what it wrote before it ended is in the pipes then.
    ended = child_has_ended(process->pid());
    if (in.write && (fds[0].revents || ended)) {
      ssize_t count = ::write(in.write.get(), input.data(), input.size());
      if (count > 0) input.remove_prefix(static_cast<std::size_t>(count));
      // A program that does not read its input to the end is not wrong.
      if (input.empty() || (count < 0 && errno != EAGAIN && errno != EINTR)) in.write.reset();
    }
    if (out.read && (fds[1].revents || ended) && !drain(out.read.get(), output.out))
      out.read.reset();
    if (err.read && (fds[2].revents || ended) && !drain(err.read.get(), output.err))
      err.read.reset();
    if (output.err.size() > 2 * kKeptError) output.err.erase(0, output.err.size() - kKeptError);
    if (output.out.size() > max_output) {
      (void)process->kill(SIGKILL);
      process->wait_blocking();
      return Failure(Errc::too_large, "the output of " + spawn.argv[0]);
    }
  }
  output.exit = process->wait_blocking();
  if (out.read) drain(out.read.get(), output.out);
  if (err.read) drain(err.read.get(), output.err);
  if (output.err.size() > kKeptError) output.err.erase(0, output.err.size() - kKeptError);
  return output;
}

}  // namespace protocol::os
