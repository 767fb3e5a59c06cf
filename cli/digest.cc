#include "cli/digest.h"

#include <boost/uuid/detail/sha1.hpp>
#include <cstdio>

namespace cli {

std::string digest(std::string_view bytes) {
  boost::uuids::detail::sha1 sha;
  sha.process_bytes(bytes.data(), bytes.size());
  boost::uuids::detail::sha1::digest_type words{};
  sha.get_digest(words);
  std::string text;
  for (unsigned int word : words) {
    char hex[9];
    std::snprintf(hex, sizeof hex, "%08x", word);
    text += hex;
  }
  return text;
}

}  // namespace cli
