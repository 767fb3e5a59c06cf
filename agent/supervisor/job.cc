#include "agent/supervisor/job.h"

#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <utility>

#include "protocol/os/clock.h"
#include "protocol/os/fd_stream.h"
#include "protocol/os/signal_names.h"
#include "protocol/os/subreaper.h"
#include "protocol/os/wakeup.h"
#include "protocol/wire/limits.h"

namespace agent::supervisor {

namespace os = protocol::os;
namespace wire = protocol::wire;
using namespace std::chrono_literals;
using std::chrono::steady_clock;
using wire::Errc;
using wire::Failure;
using wire::FrameKind;

namespace {

constexpr std::size_t kMaxLeftoversNamed = 20;
// A terminal hands over what was written to it a moment later. With a slave still open somewhere
// there is no end to wait for, only silence.
constexpr auto kTerminalSilence = 50ms;
constexpr int kKillRounds = 20;
constexpr int kTimedOut = 124;  // as timeout(1) has it

void kill_all(const std::vector<os::ProcessInfo>& processes, int signal) {
  for (const os::ProcessInfo& process : processes) ::kill(process.pid, signal);
}

// How many processes of the cgroup the kernel has killed for want of memory.
std::uint64_t oom_kills(const std::filesystem::path& events) {
  std::ifstream file(events);
  std::string name;
  std::uint64_t count = 0;
  while (file >> name >> count)
    if (name == "oom_kill") return count;
  return 0;
}

}  // namespace

struct Job::State {
  State(os::executor e, JobSpec s, EndTimes t)
      : ex(e), spec(std::move(s)), times(t), changed(e), input_turn(e) {}

  os::executor ex;
  JobSpec spec;
  EndTimes times;
  os::Wakeup changed;  // exited, streams ended, finished
  std::optional<os::Process> process;
  std::unique_ptr<Journal> journal;
  wire::JobInfo info;

  // Pipes: three streams. A terminal: `output` reads and writes it.
  std::unique_ptr<os::FdStream> output, error, input;
  bool terminal = false;
  os::Wakeup input_turn;
  bool input_busy = false, input_ended = false;

  int pumps = 0;          // still reading
  bool exited = false;    // the process ended; not yet reaped
  bool draining = false;  // pumps take what is there and stop
  bool finished = false;
  bool ending = false;
  bool timed_out = false;
  std::uint64_t oom_kills_before = 0;
  bool orphans_come_here = os::is_subreaper();
  int hurries = 0;
  std::vector<std::string> leftovers;
  std::vector<os::ProcessInfo> strays;  // descendants in other sessions, that are to end, too
  wire::Exited ended;

  // ---- output --------------------------------------------------------------------------------

  static awaitable<void> pump(std::shared_ptr<State> self, os::FdStream& stream, FrameKind kind) {
    std::array<std::byte, wire::kMaxBulkBytes> buffer;
    auto keep = [&](std::size_t count) {
      self->journal->append(kind,
                            std::string_view(reinterpret_cast<const char*>(buffer.data()), count));
    };
    while (!self->draining) {
      co_await self->journal->caught_up();
      if (self->draining) break;
      auto count = stream.read_now(buffer);
      if (count) {
        if (*count == 0) break;
        keep(*count);
        continue;
      }
      if (count.error().code != Errc::busy) break;
      co_await stream.readable();
    }
    if (self->draining && self->terminal) {
      co_await drain_terminal(self, stream);
    } else if (self->draining) {
      // As much as the pipe holds now: whoever still has it open may write for ever.
      int waiting = 0;
      if (stream.read_fd() >= 0) ::ioctl(stream.read_fd(), FIONREAD, &waiting);
      while (waiting > 0) {
        auto count =
            stream.read_now(std::span(buffer).first(std::min<std::size_t>(buffer.size(), waiting)));
        if (!count || *count == 0) break;
        keep(*count);
        waiting -= static_cast<int>(*count);
      }
    }
    --self->pumps;
    self->changed.notify();
  }

  static awaitable<void> drain_terminal(std::shared_ptr<State> self, os::FdStream& stream) {
    std::array<std::byte, wire::kMaxBulkBytes> buffer;
    std::size_t taken = 0;
    auto quiet_since = steady_clock::now();
    while (taken < wire::kFullCredit) {
      auto count = stream.read_now(buffer);
      if (count && *count == 0) co_return;
      if (count) {
        self->journal->append(
            FrameKind::output,
            std::string_view(reinterpret_cast<const char*>(buffer.data()), *count));
        taken += *count;
        quiet_since = steady_clock::now();
        continue;
      }
      if (count.error().code != Errc::busy) co_return;
      if (steady_clock::now() - quiet_since > kTerminalSilence) co_return;
      co_await os::pause(self->ex, 2ms);
    }
  }

  // ---- the end -------------------------------------------------------------------------------

  std::vector<os::ProcessInfo> left() const {
    auto session = os::session_processes(process->pid());
    std::erase_if(session,
                  [&](const os::ProcessInfo& p) { return exited && p.pid == process->pid(); });
    return session;
  }

  // The command has ended; what shares its session has not.
  static awaitable<void> end_leftovers(std::shared_ptr<State> self) {
    // What lost its parent is our child now (supervisor.cc: subreaper), so this is the usual case.
    if (self->orphans_come_here && !os::has_orphans()) co_return;
    auto session = self->left();
    if (session.empty()) co_return;
    for (const os::ProcessInfo& process : session) {
      if (self->leftovers.size() == kMaxLeftoversNamed) break;
      self->leftovers.push_back(process.name + " (pid " + std::to_string(process.pid) + ")");
    }
    kill_all(session, SIGTERM);
    kill_all(session, SIGCONT);  // a stopped one would not hear of it
    auto deadline = steady_clock::now() + self->times.leftovers;
    while (steady_clock::now() < deadline) {
      co_await os::pause(self->ex, 5ms);
      session = self->left();
      if (session.empty()) co_return;
    }
    // Again and again, because one that is being killed may have forked just before.
    for (int round = 0; round < kKillRounds && !session.empty(); ++round) {
      kill_all(session, SIGKILL);
      co_await os::pause(self->ex, 5ms);
      session = self->left();
    }
  }

  // Those that are there still, and what has come of them since.
  std::vector<os::ProcessInfo> strays_left() const {
    std::vector<os::ProcessInfo> found;
    for (const os::ProcessInfo& stray : strays) {
      if (os::start_ticks(stray.pid) != stray.started) continue;
      auto family = os::descendants(stray.pid);
      found.insert(found.end(), family.begin(), family.end());
      found.push_back(stray);
    }
    return found;
  }

  static awaitable<void> end_strays(std::shared_ptr<State> self) {
    auto left = self->strays_left();
    kill_all(left, SIGTERM);
    kill_all(left, SIGCONT);
    auto deadline = steady_clock::now() + self->times.terminate;
    while (!left.empty() && steady_clock::now() < deadline) {
      co_await os::pause(self->ex, 5ms);
      left = self->strays_left();
    }
    for (int round = 0; round < kKillRounds && !left.empty(); ++round) {
      kill_all(left, SIGKILL);
      co_await os::pause(self->ex, 50ms);  // until they are reaped
      left = self->strays_left();
    }
  }

  static awaitable<void> watch(std::shared_ptr<State> self) {
    co_await self->process->exited(self->ex);
    self->exited = true;
    self->changed.notify();
    co_await end_leftovers(self);
    co_await end_strays(self);

    self->draining = true;
    self->journal->interrupt();
    if (self->output && self->pumps > 0) wake_pumps(self);
    while (self->pumps > 0) co_await self->changed.wait();
    if (self->input) self->input->close();
    if (self->output) self->output->close();
    if (self->error) self->error->close();
    self->input_turn.notify();

    os::ExitStatus exit = self->process->reap();
    wire::Exited exited;
    exited.status = exit.status;
    if (exit.signal != 0) exited.signal = os::signal_name(exit.signal);
    exited.core_dumped = exit.core_dumped;
    exited.leftovers = self->leftovers;
    // Whichever process was killed: `make` ends with a status when its compiler is.
    exited.oom =
        !self->spec.oom_events.empty() && oom_kills(self->spec.oom_events) > self->oom_kills_before;
    if (self->timed_out) {
      exited.status = kTimedOut;
      exited.signal.clear();
    }
    self->info.state = "exited";
    if (exited.signal.empty()) self->info.status = exited.status;
    self->info.signal = exited.signal;
    self->journal->finish(exited);
    self->ended = std::move(exited);
    self->finished = true;
    if (self->spec.on_finished) self->spec.on_finished();
    self->changed.notify();
  }

  static void wake_pumps(const std::shared_ptr<State>& self) {
    self->output->cancel_waits();
    if (self->error) self->error->cancel_waits();
  }

  // Returns when the command ended, the time is over or somebody hurries.
  static awaitable<void> give_time(std::shared_ptr<State> self, std::chrono::milliseconds time) {
    int hurries = self->hurries;
    auto deadline = steady_clock::now() + time;
    bool woken = true;
    while (woken && !self->exited && self->hurries == hurries)
      woken = co_await self->changed.wait_until(deadline);
  }

  static awaitable<void> end_ladder(std::shared_ptr<State> self, int first) {
    self->signal_group(first);
    kill_all(self->strays, first);
    co_await give_time(self, self->times.interrupt);
    if (self->exited) co_return;
    kill_all(self->left(), SIGTERM);
    kill_all(self->left(), SIGCONT);
    co_await give_time(self, self->times.terminate);
    for (int round = 0; round < kKillRounds && !self->exited; ++round) {
      kill_all(self->left(), SIGKILL);
      (void)self->process->kill(SIGKILL);
      co_await give_time(self, 100ms);
    }
  }

  // Ends it when its time is over, and says so in its own output, where whoever looks later finds
  // it.
  static awaitable<void> limit_time(std::shared_ptr<State> self) {
    auto deadline = steady_clock::now() + self->spec.time;
    bool woken = true;
    while (woken && !self->exited) woken = co_await self->changed.wait_until(deadline);
    if (self->exited) co_return;
    self->timed_out = true;
    std::string said = "sandbox: ended after its limit of " +
                       std::to_string(self->spec.time.count()) + "s (limits.time)";
    self->journal->append(self->terminal ? FrameKind::output : FrameKind::error,
                          said + (self->terminal ? "\r\n" : "\n"));
    if (!std::exchange(self->ending, true)) co_await end_ladder(self, SIGINT);
  }

  void signal_group(int number) {
    if (exited || finished) return;
    if (terminal && output) {
      pid_t foreground = ::tcgetpgrp(output->read_fd());
      if (foreground > 0 && foreground != process->pid()) ::kill(-foreground, number);
    }
    (void)process->kill_group(number);
  }

  // ---- input ---------------------------------------------------------------------------------

  os::FdStream* input_stream() { return terminal ? output.get() : input.get(); }

  static awaitable<result<void>> write_input(std::shared_ptr<State> self, std::string_view bytes) {
    while (self->input_busy && !self->finished) co_await self->input_turn.wait();
    os::FdStream* stream = self->input_stream();
    if (self->finished || self->input_ended || !stream) co_return Failure(Errc::gone, "its input");
    self->input_busy = true;
    auto written = co_await stream->write(std::as_bytes(std::span(bytes)));
    self->input_busy = false;
    self->input_turn.notify();
    co_return written;
  }

  static awaitable<void> end_input(std::shared_ptr<State> self) {
    while (self->input_busy && !self->finished) co_await self->input_turn.wait();
    if (self->finished || std::exchange(self->input_ended, true)) co_return;
    if (!self->terminal) {
      self->input.reset();
      co_return;
    }
    termios settings;
    if (::tcgetattr(self->output->read_fd(), &settings) != 0) co_return;
    if ((settings.c_lflag & ICANON) == 0) co_return;
    auto key = static_cast<std::byte>(settings.c_cc[VEOF]);
    (void)co_await self->output->write(std::span(&key, 1));
  }
};

Job::Job() = default;

Job::~Job() = default;

result<std::shared_ptr<Job>> Job::start(os::executor ex, JobSpec spec, EndTimes times) {
  auto state = std::make_shared<State>(ex, std::move(spec), times);
  const JobSpec& ours = state->spec;
  os::Spawn spawn;
  spawn.argv = ours.argv;
  spawn.env = ours.env;
  spawn.cwd = ours.cwd.native();
  spawn.new_session = true;

  os::Pipe in, out, err;
  os::Pty pty;
  if (ours.terminal) {
    auto opened = os::open_pty(*ours.terminal);
    if (!opened) return opened.error();
    pty = std::move(*opened);
    spawn.terminal = pty.path;
    state->terminal = true;
  } else {
    for (os::Pipe* pipe : {&in, &out, &err}) {
      auto made = os::make_pipe();
      if (!made) return made.error();
      *pipe = std::move(*made);
    }
    if (ours.interactive_input) spawn.stdin_fd = in.read.get();
    spawn.stdout_fd = out.write.get();
    spawn.stderr_fd = err.write.get();
  }
  if (!ours.prefix.empty()) {
    // Looked for here, so that what is not there is told as ever.
    auto program = os::find_program(spawn);
    if (!program) return program.error();
    spawn.argv = ours.prefix;
    spawn.argv.push_back(*program);
    spawn.argv.insert(spawn.argv.end(), ours.argv.begin(), ours.argv.end());
  }
  if (!ours.oom_events.empty()) state->oom_kills_before = oom_kills(ours.oom_events);
  auto process = ours.start ? ours.start(spawn) : os::Process::start(spawn);
  if (!process) return process.error();
  state->process.emplace(std::move(*process));

  state->info.job = ours.id;
  state->info.command = ours.command;
  state->info.state = "running";
  state->info.detached = ours.detached;
  state->info.fence = ours.fence;
  state->info.pid = state->process->pid();
  state->info.started_at = os::format_utc(std::chrono::system_clock::now());
  state->journal = std::make_unique<Journal>(ex, ours.journal, state->info, ours.journal_limits);

  if (ours.terminal) {
    state->output = os::FdStream::both(ex, std::move(pty.master));
  } else {
    state->output = os::FdStream::pair(ex, std::move(out.read), os::Fd());
    state->error = os::FdStream::pair(ex, std::move(err.read), os::Fd());
    if (ours.interactive_input)
      state->input = os::FdStream::pair(ex, os::Fd(), std::move(in.write));
  }
  state->pumps = state->error ? 2 : 1;
  os::spawn(ex, "job output", State::pump(state, *state->output, FrameKind::output));
  if (state->error)
    os::spawn(ex, "job errors", State::pump(state, *state->error, FrameKind::error));
  os::spawn(ex, "job", State::watch(state));
  if (ours.time.count() > 0) os::spawn(ex, "job time", State::limit_time(state));

  std::shared_ptr<Job> job(new Job);
  job->state_ = std::move(state);
  return job;
}

const JobSpec& Job::spec() const { return state_->spec; }
pid_t Job::pid() const { return state_->process->pid(); }
wire::JobInfo Job::info() const { return state_->info; }
Journal& Job::journal() { return *state_->journal; }
bool Job::finished() const { return state_->finished; }

awaitable<void> Job::wait_finished() {
  auto state = state_;
  while (!state->finished) co_await state->changed.wait();
}

void Job::signal(int number) {
  if (state_->ending && (number == SIGINT || number == SIGTERM)) {
    ++state_->hurries;
    state_->changed.notify();
    return;
  }
  state_->signal_group(number);
}

void Job::close_stream(FrameKind stream) {
  if (state_->terminal) return signal(SIGPIPE);
  const auto& pipe = stream == FrameKind::error ? state_->error : state_->output;
  if (pipe) pipe->close();
}

void Job::resize(os::WindowSize size) {
  if (state_->terminal && state_->output && !state_->finished)
    os::set_window(state_->output->read_fd(), size);
}

void Job::end() {
  if (state_->finished || std::exchange(state_->ending, true)) return;
  os::spawn(state_->ex, "job end", State::end_ladder(state_, SIGINT));
}

void Job::kill(int signal) {
  if (state_->finished) return;
  auto tree = os::descendants(state_->process->pid());
  std::erase_if(tree, [&](const auto& p) { return p.session == state_->process->pid(); });
  state_->strays.insert(state_->strays.end(), tree.begin(), tree.end());
  if (std::exchange(state_->ending, true)) return;
  os::spawn(state_->ex, "job end", State::end_ladder(state_, signal));
}

const wire::Exited& Job::exited() const { return state_->ended; }

awaitable<result<void>> Job::write_input(std::string_view bytes) {
  return State::write_input(state_, bytes);
}

void Job::end_input() { os::spawn(state_->ex, "job input end", State::end_input(state_)); }

}  // namespace agent::supervisor
