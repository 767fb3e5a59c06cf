#include "protocol/sync/unread.h"

namespace protocol::sync {

namespace {

constexpr std::size_t kMaxNamed = 100;

}  // namespace

std::vector<wire::LeftOut> name_unread(const std::vector<Unread>& unread, End at) {
  const std::string where = at == End::here ? "here" : "in the sandbox";
  const std::string stays = at == End::here ? "it stays as it is, here and in the sandbox"
                                            : "it stays as it is, there and here";
  std::vector<wire::LeftOut> named;
  for (const Unread& one : unread) {
    if (named.size() == kMaxNamed) {
      named.push_back(
          {".", std::to_string(unread.size() - kMaxNamed) + " more that are unreadable " + where});
      break;
    }
    named.push_back(
        {one.path.empty() ? "." : one.path, "unreadable " + where + ": " + one.why + "; " + stays});
  }
  return named;
}

}  // namespace protocol::sync
