#include "agent/authorized_keys.h"

#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "agent/log.h"
#include "protocol/os/flock.h"
#include "protocol/os/paths.h"
#include "protocol/wire/limits.h"

namespace agent {
namespace {

namespace os = protocol::os;
using protocol::ssh::PublicKey;
using protocol::wire::Errc;
using protocol::wire::Failure;

constexpr std::size_t kMaxFileBytes = 4 * 1024 * 1024;

// Changes whenever the file's content may have; empty when there is no file.
std::string stamp_of(const std::filesystem::path& file) {
  struct stat status {};
  if (::stat(file.c_str(), &status) != 0) {
    return {};
  }
  return std::to_string(status.st_ino) + " " + std::to_string(status.st_size) + " " +
         std::to_string(status.st_mtim.tv_sec) + "." + std::to_string(status.st_mtim.tv_nsec);
}

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) {
    text.remove_prefix(1);
  }
  while (!text.empty() && is_space(text.back())) {
    text.remove_suffix(1);
  }
  return text;
}

// Cuts one word off; blanks inside quotes belong to it.
std::string_view take_word(std::string_view& text) {
  bool quoted = false;
  std::size_t end = 0;
  while (end < text.size() && (quoted || !is_space(text[end]))) {
    quoted ^= text[end] == '"';
    ++end;
  }
  std::string_view word = text.substr(0, end);
  text = trimmed(text.substr(end));
  return word;
}

bool is_key_type(std::string_view word) {
  return word.rfind("ssh-", 0) == 0 || word.rfind("ecdsa-", 0) == 0 || word.rfind("sk-", 0) == 0;
}

bool is_user_name(std::string_view name) {
  return !name.empty() && name.size() <= protocol::wire::kMaxNameBytes &&
         std::none_of(name.begin(), name.end(),
                      [](unsigned char c) { return c < 0x20 || c == 0x7f || c == '"'; });
}

}  // namespace

result<std::optional<KeyLine>> parse_key_line(std::string_view line) {
  std::string_view rest = trimmed(line);
  if (rest.empty() || rest.front() == '#') {
    return std::optional<KeyLine>();
  }
  KeyLine parsed;
  std::string_view word = take_word(rest);
  if (!is_key_type(word)) {
    constexpr std::string_view kUser = "user=\"";
    if (word.rfind(kUser, 0) != 0 || word.back() != '"' || word.size() <= kUser.size()) {
      return Failure(Errc::bad_input,
                     "begins with neither a key type nor user=\"NAME\": " + std::string(word));
    }
    std::string_view name = word.substr(kUser.size(), word.size() - kUser.size() - 1);
    if (!is_user_name(name)) {
      return Failure(Errc::bad_input, "not a user name, or another option: " + std::string(word));
    }
    parsed.user = name;
    word = take_word(rest);
    if (!is_key_type(word)) {
      return Failure(Errc::bad_input, "no key type after the options: " + std::string(word));
    }
  }
  std::string_view blob = take_word(rest);
  if (blob.empty()) {
    return Failure(Errc::bad_input, "no key after " + std::string(word));
  }
  parsed.key = std::string(word) + " " + std::string(blob);
  if (parsed.user.empty()) {
    if (!is_user_name(rest)) {
      return Failure(Errc::bad_input, "says not whose key it is: no user=\"NAME\" and no comment");
    }
    parsed.user = rest;
  }
  return std::optional<KeyLine>(std::move(parsed));
}

std::string key_line(const KeyLine& line) { return "user=\"" + line.user + "\" " + line.key; }

void AuthorizedKeys::refresh() {
  std::string stamp = stamp_of(file_);
  if (stamp == stamp_ && !stamp.empty()) {
    return;
  }
  entries_.clear();
  stamp_ = stamp;
  if (stamp.empty()) {
    return;
  }
  auto content = os::read_file(file_, kMaxFileBytes);
  if (!content) {
    log::warn("authorized_keys_unreadable", {{"error", content.error().what}});
    stamp_.clear();
    return;
  }
  std::size_t number = 0;
  for (std::size_t start = 0; start < content->size();) {
    std::size_t end = std::min(content->find('\n', start), content->size());
    std::string_view text = std::string_view(*content).substr(start, end - start);
    start = end + 1;
    ++number;
    auto line = parse_key_line(text);
    if (line && !*line) {
      continue;
    }
    auto key = line ? PublicKey::parse((*line)->key) : result<PublicKey>(line.error());
    if (!key) {
      log::warn("authorized_keys_bad_line",
                {{"line", std::to_string(number)}, {"error", key.error().what}});
      continue;
    }
    entries_.push_back({(*line)->user, std::move(*key)});
  }
}

std::size_t AuthorizedKeys::user_count() {
  refresh();
  std::set<std::string> users;
  for (const Entry& entry : entries_) {
    users.insert(entry.user);
  }
  return users.size();
}

std::optional<std::string> AuthorizedKeys::user_of(const PublicKey& key) {
  refresh();
  auto found = std::find_if(entries_.rbegin(), entries_.rend(),
                            [&](const Entry& entry) { return entry.key == key; });
  if (found == entries_.rend()) {
    return std::nullopt;
  }
  return found->user;
}

result<bool> authorize_key(const std::filesystem::path& file, const std::string& line,
                           const std::string& user) {
  // A given user makes up for a comment that is not there.
  auto parsed = parse_key_line(user.empty() ? line : line + " -");
  if (!parsed) {
    return parsed.error();
  }
  if (!*parsed || line.find('\n') != std::string::npos) {
    return Failure(Errc::bad_input, "not one key: write it as 'ssh-ed25519 AAAA... comment'");
  }
  KeyLine wanted = **parsed;
  if (!user.empty()) {
    wanted.user = user;
  }
  if (!is_user_name(wanted.user)) {
    return Failure(Errc::bad_input, "not a user name: " + wanted.user);
  }
  auto key = PublicKey::parse(wanted.key);
  if (!key) {
    return key.error();
  }
  wanted.key = key->text();

  auto lock = os::FileLock::lock(file.string() + ".lock", os::FileLock::Kind::exclusive);
  if (!lock) {
    return lock.error();
  }
  std::string content;
  auto old = os::read_file(file, kMaxFileBytes);
  if (old) {
    content = std::move(*old);
  } else if (old.error().code != Errc::not_found) {
    return old.error();
  }
  if (AuthorizedKeys(file).user_of(*key) == wanted.user) {
    return false;
  }
  if (!content.empty() && content.back() != '\n') {
    content += '\n';
  }
  content += key_line(wanted) + '\n';
  if (auto written = os::write_file(file, content); !written) {
    return written.error();
  }
  return true;
}

}  // namespace agent
