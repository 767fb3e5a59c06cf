#include "cli/prune_choice.h"

#include <algorithm>
#include <charconv>
#include <numeric>

#include "cli/duration.h"
#include "cli/error.h"
#include "protocol/os/clock.h"
#include "protocol/wire/quoting.h"

namespace cli {
namespace os = protocol::os;

PruneChoice prune_choice(const Arguments& arguments) {
  PruneChoice choice;
  choice.all = arguments.has("all");
  choice.orphaned = arguments.has("orphaned");
  if (auto text = arguments.value("keep")) {
    std::size_t count = 0;
    auto parsed = std::from_chars(text->data(), text->data() + text->size(), count);
    if (parsed.ec != std::errc() || parsed.ptr != text->data() + text->size()) {
      throw UserError(
          "arguments",
          "--keep takes a number of sandboxes, not `" + protocol::wire::printable(*text, 80) + "`",
          {}, kMisuse);
    }
    choice.keep = count;
  }
  if (auto text = arguments.value("older-than")) {
    choice.older_than = parse_duration(*text);
    if (!choice.older_than) {
      throw UserError("arguments",
                      "--older-than takes a duration such as 1h, 30d or 2w, not `" +
                          protocol::wire::printable(*text, 80) + "`",
                      {}, kMisuse);
    }
  }
  return choice;
}

std::vector<std::size_t> choose_to_prune(const std::vector<PruneCandidate>& candidates,
                                         const PruneChoice& choice, const std::string& now) {
  std::vector<std::size_t> order(candidates.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  // Such texts compare as the times that they are.
  std::stable_sort(order.begin(), order.end(), [&candidates](std::size_t a, std::size_t b) {
    return candidates[a].used_at > candidates[b].used_at;
  });
  std::string limit;
  auto date = os::parse_utc(now);
  if (choice.older_than && date) {
    limit = os::format_utc(*date - *choice.older_than);
  }
  bool narrowed = choice.all || choice.keep || choice.older_than;
  std::vector<std::size_t> chosen;
  for (std::size_t place = 0; place < order.size(); ++place) {
    const PruneCandidate& one = candidates[order[place]];
    bool kept = choice.keep && place < *choice.keep;
    bool young = choice.older_than && one.used_at >= limit;
    bool wanted = one.orphaned || (narrowed && !choice.orphaned);
    if (!one.active && wanted && !kept && !young) {
      chosen.push_back(order[place]);
    }
  }
  return chosen;
}

}  // namespace cli
