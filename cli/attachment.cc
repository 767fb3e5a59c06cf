#include "cli/attachment.h"

#include <utility>

#include "cli/error.h"

namespace cli {
namespace os = protocol::os;
namespace wire = protocol::wire;

Attachment::Attachment(const os::executor& executor, std::shared_ptr<Session> session,
                       CommandStreams& streams, Output& output)
    : session_(std::move(session)),
      streams_(streams),
      output_(output),
      copies_(executor, [this](wire::FrameKind stream, const wire::Failure& why) {
        unwritable(stream, why);
      }) {}

void Attachment::unwritable(wire::FrameKind stream, const wire::Failure& why) {
  if (why.code == wire::Errc::gone) {
    if (stream == wire::FrameKind::output) {
      leave();  // `| head`: there is nobody to watch for
    }
    return;
  }
  outcome_.output_lost += (outcome_.output_lost.empty() ? "" : "; ") + why.what;
  output_.warn(why.what + "; what else the job prints there is not shown");
}

void Attachment::leave() {
  left_ = true;
  session_->close();
}

os::awaitable<void> Attachment::watch() {
  while (!outcome_.exited && !outcome_.failed) {
    auto incoming = co_await session_->next();
    if (const auto* notice = std::get_if<wire::Notice>(&incoming.message)) {
      output_.note("sandbox: " + notice->text);
    } else if (const auto* failed = std::get_if<wire::Failed>(&incoming.message)) {
      outcome_.failed = *failed;
    } else if (incoming.request != request_) {
      continue;
    } else if (std::holds_alternative<wire::Started>(incoming.message) && !started_) {
      started_ = true;
      streams_.begin();
      copies_.begin(session_, request_, streams_, false);
    } else if (const auto* exited = std::get_if<wire::Exited>(&incoming.message)) {
      outcome_.exited = *exited;
    }
  }
}

os::awaitable<Attachment::Outcome> Attachment::run(std::string job, std::string user) {
  request_ = session_->new_request();
  wire::Attach attach;
  attach.job = std::move(job);
  attach.user = std::move(user);
  session_->send(request_, attach);
  std::exception_ptr lost;
  try {
    co_await watch();
  } catch (const UserError&) {
    if (!left_) {
      lost = std::current_exception();
    }
  }
  if (started_) {
    streams_.end();
    if (!outcome_.exited) {  // nobody will tell the ends of its streams
      for (auto kind : {wire::FrameKind::output, wire::FrameKind::error}) {
        session_->bulk(kind, request_)->cut("the job's end was not told");
      }
    }
    co_await copies_.finished();
  }
  session_->drop(request_);
  if (lost) {
    std::rethrow_exception(lost);
  }
  co_return std::move(outcome_);
}

}  // namespace cli
