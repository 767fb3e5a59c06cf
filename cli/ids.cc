#include "cli/ids.h"

#include "protocol/wire/limits.h"

namespace cli {

bool is_plain_id(std::string_view text) {
  return !text.empty() && text.size() <= protocol::wire::kMaxNameBytes &&
         text.find_first_not_of("0123456789abcdefghijklmnopqrstuvwxyz-_") == std::string_view::npos;
}

}  // namespace cli
