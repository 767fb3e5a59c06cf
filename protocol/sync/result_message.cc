#include "protocol/sync/result_message.h"

#include <algorithm>
#include <string_view>

#include "protocol/os/paths.h"
#include "protocol/sync/workspace_git.h"

namespace protocol::sync {

namespace {

constexpr std::string_view kGeneration = "generation ";

}  // namespace

std::string result_message(const std::string& generation, const std::vector<wire::Ref>& commits) {
  std::string message = "result " + os::random_hex(32) + "\n\n";
  message.append(kGeneration).append(generation);
  for (const wire::Ref& ref : commits) message += "\n" + ref.oid + " " + ref.name;
  return message;
}

std::string generation_of(const std::string& message) {
  std::size_t begin = message.find("\n" + std::string(kGeneration));
  if (begin == std::string::npos) return {};
  begin += 1 + kGeneration.size();
  return message.substr(begin, std::min(message.find('\n', begin), message.size()) - begin);
}

std::vector<wire::Ref> named_commits(const std::string& message) {
  std::vector<wire::Ref> commits;
  for (std::size_t begin = 0; begin < message.size();) {
    std::size_t end = std::min(message.find('\n', begin), message.size());
    std::string_view line(message.data() + begin, end - begin);
    begin = end + 1;
    std::size_t space = line.find(' ');
    if (space == std::string_view::npos || !is_object_id(line.substr(0, space))) continue;
    commits.push_back({std::string(line.substr(space + 1)), std::string(line.substr(0, space))});
  }
  return commits;
}

}  // namespace protocol::sync
