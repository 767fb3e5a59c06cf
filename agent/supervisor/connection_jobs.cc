// A connection's jobs: started, streamed, fed, ended.
#include <algorithm>
#include <csignal>
#include <utility>

#include "agent/supervisor/connection.h"
#include "agent/supervisor/connection_request.h"
#include "agent/supervisor/supervisor.h"
#include "protocol/os/signal_names.h"
#include "protocol/os/wakeup.h"

namespace agent::supervisor {

namespace os = protocol::os;
namespace wire = protocol::wire;
using wire::Errc;
using wire::Failure;
using wire::FrameKind;

awaitable<void> Connection::exec(std::uint32_t number, wire::Exec exec) {
  Request& of = *request(number);
  // What another's command left is not to be mixed with what this one will. Where that cannot be
  // kept now (a full disk), the command may be what makes room.
  auto others = co_await supervisor_.take_owed_of_others(hello_.origin);
  (void)others;
  // Somebody else's, where this command was let in beside it: it sees nothing of it, or all.
  co_await supervisor_.applied();
  if (over()) co_return;
  std::string notice;
  if (exec.detach) {
    exec.interactive_input = false;
    exec.terminal.reset();
  }
  auto job = supervisor_.start_job(exec, hello_, notice);
  if (!job) {
    fail(number, "exec", job.error());
    of.failed = true;
    co_return;
  }
  current_ = of.job = *job;
  if (!notice.empty()) frames_.send(number, wire::Notice{notice});
  frames_.send(number, wire::Started{current_->spec().id, current_->pid()});
  for (int signal : std::exchange(of.signals, {})) current_->signal(signal);
  if (of.window) current_->resize({of.window->rows, of.window->columns});
  if (exec.detach) {
    // Until the agent has passed the lock on to it, it ends with its client.
    while (!of.detached && !over()) co_await changed_.wait();
    if (hung_up_ && !of.detached) co_await of.job->wait_finished();
  } else {
    begin(feed_input(shared_from_this(), number, current_), "input");
    co_await stream(number, current_->journal().read(true));
    co_await current_->wait_finished();
  }
  current_.reset();
  discard_streams(number, of);
}

void Connection::on_detach(std::uint32_t number) {
  Request* of = request(number);
  if (!of || !of->job || !of->job->spec().detached || over()) return;
  of->detached = true;
  if (current_ == of->job) current_.reset();
  changed_.notify();
}

awaitable<void> Connection::stream(std::uint32_t number, JournalReader reader) {
  if (over()) co_return;
  readers_.push_back(&reader);
  struct Leave {
    std::vector<JournalReader*>& readers;
    JournalReader* reader;
    ~Leave() { std::erase(readers, reader); }
  } leave{readers_, &reader};
  for (;;) {
    auto item = co_await reader.next();
    if (!item) break;
    if (item->forgotten > 0) {
      frames_.send(number, wire::Notice{std::to_string(item->forgotten) +
                                        " bytes of earlier output were not kept"});
      continue;
    }
    auto sent = co_await frames_.send_bulk(item->kind, number, item->bytes);
    if (!sent) {
      reader.stop();
      co_return;
    }
  }
  if (over()) co_return;
  frames_.end_bulk(FrameKind::output, number);
  frames_.end_bulk(FrameKind::error, number);
  if (auto exited = reader.exited())
    frames_.send(number, *exited);
  else
    fail(number, "attach", Failure(Errc::gone, "how it ended was not recorded"));
}

awaitable<void> Connection::feed_input(std::shared_ptr<Connection> self, std::uint32_t number,
                                       std::shared_ptr<Job> job) {
  Request& of = *self->request(number);
  for (;;) {
    auto bytes = co_await of.input.next();
    if (!bytes) break;
    self->buffered_ -= bytes->size();
    auto written = co_await job->write_input(*bytes);
    (void)written;  // a job that does not read its input is not wrong: the rest is dropped
    self->frames_.consumed(FrameKind::input, number, bytes->size());
  }
  // The agent's end is not the client's.
  if (!self->over() && !of.discarded) job->end_input();
}

awaitable<void> Connection::end_job(std::shared_ptr<Connection> self, std::uint32_t number,
                                    wire::EndJob end) {
  co_await self->supervisor_.end_begun(end.connection);
  auto job = self->supervisor_.find_job(end.job);
  if (job) {
    if (end.signal.empty())
      job->end();
    else
      job->kill(os::signal_number(end.signal).value_or(SIGINT));
    co_await job->wait_finished();
    std::string origin = job->spec().origin;
    auto taken = co_await self->supervisor_.take_owed(origin);
    (void)taken;  // it stays owed
  }
  self->frames_.send(number, wire::Ended{});
}

awaitable<void> Connection::watch_job(std::shared_ptr<Connection> self, std::uint32_t number,
                                      std::string id) {
  auto job = self->supervisor_.find_job(id);
  if (job) {
    co_await job->wait_finished();
    std::string origin = job->spec().origin;
    auto taken = co_await self->supervisor_.take_owed(origin);
    (void)taken;  // it stays owed
    self->frames_.send(number, job->exited());
    co_return;
  }
  // Of an earlier supervisor of this sandbox: its journal ends with how it ended.
  auto reader = self->supervisor_.open_journal(id);
  if (!reader) {
    self->fail(number, "watch_job", reader.error());
    co_return;
  }
  for (auto item = co_await reader->next(); item; item = co_await reader->next())
    co_await os::pause(self->supervisor_.executor(), std::chrono::milliseconds(0));
  if (auto exited = reader->exited())
    self->frames_.send(number, *exited);
  else
    self->fail(number, "watch_job", Failure(Errc::gone, "how it ended was not recorded"));
}

awaitable<void> Connection::attach(std::shared_ptr<Connection> self, std::uint32_t number,
                                   std::string id) {
  auto job = self->supervisor_.find_job(id);
  if (job) {
    Request* of = self->request(number);
    if (!of) co_return;
    of->job = job;
    self->frames_.send(number, wire::Started{id, job->pid()});
    self->begin(feed_input(self, number, job), "input");
    co_await self->stream(number, job->journal().read(false));
    self->discard_streams(number, *of);
    co_return;
  }
  // Of an earlier supervisor of this sandbox.
  auto reader = self->supervisor_.open_journal(id);
  if (!reader) {
    self->fail(number, "attach", reader.error());
    co_return;
  }
  self->frames_.send(number, wire::Started{id, 0});
  co_await self->stream(number, std::move(*reader));
}

}  // namespace agent::supervisor
