// Who may come in: the agent's authorized_keys file. One key per line, as OpenSSH writes them; the
// only option is user="NAME", and without it the comment says whose key it is. A line with any
// other option is not honoured, because what it was meant to restrict would not be.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "protocol/ssh/key.h"
#include "protocol/wire/result.h"

namespace agent {

using protocol::wire::result;

// One line taken apart. The key's text is not looked into.
struct KeyLine {
  std::string user;
  std::string key;  // "ssh-ed25519 AAAA..."
};
// std::nullopt for blank lines and comments; Errc::bad_input says what is wrong.
result<std::optional<KeyLine>> parse_key_line(std::string_view line);
// The line that parse_key_line reads back.
std::string key_line(const KeyLine& line);

class AuthorizedKeys {
 public:
  explicit AuthorizedKeys(std::filesystem::path file) : file_(std::move(file)) {}

  // Whose key this is. Reads the file again when it has changed; bad lines are logged by number and
  // skipped. The last line that names the key counts. A file that cannot be read lets nobody in.
  std::optional<std::string> user_of(const protocol::ssh::PublicKey& key);
  // How many people there are.
  std::size_t user_count();

 private:
  struct Entry {
    std::string user;
    protocol::ssh::PublicKey key;
  };
  void refresh();

  std::filesystem::path file_;
  std::string stamp_;  // what the file looked like when it was read
  std::vector<Entry> entries_;
};

// Adds a key to the file, atomically, and makes the file (0600) when it is not there. `user`
// overrides the line's own. false when the file has that key for that user already.
result<bool> authorize_key(const std::filesystem::path& file, const std::string& line,
                           const std::string& user);

}  // namespace agent
