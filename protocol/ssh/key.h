// SSH keys: made, read, written, compared. Values; the key material is shared and freed with the
// last copy.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "protocol/wire/result.h"

struct ssh_key_struct;

namespace protocol::ssh {

using wire::result;

class PublicKey {
 public:
  PublicKey() = default;
  explicit PublicKey(std::shared_ptr<ssh_key_struct> key) : key_(std::move(key)) {}
  // Of one authorized_keys-style line or "type base64"; options and comment must have been taken
  // off.
  static result<PublicKey> parse(const std::string& type_and_base64);
  std::string type() const;         // ssh-ed25519
  std::string text() const;         // "ssh-ed25519 AAAA..."
  std::string fingerprint() const;  // SHA256:...
  bool operator==(const PublicKey& other) const;
  ssh_key_struct* handle() const { return key_.get(); }  // for protocol/ssh alone

 private:
  std::shared_ptr<ssh_key_struct> key_;
};

class PrivateKey {
 public:
  PrivateKey() = default;
  explicit PrivateKey(std::shared_ptr<ssh_key_struct> key) : key_(std::move(key)) {}
  static result<PrivateKey> generate_ed25519();
  // Errc::not_found, denied, bad_input (also when it has a passphrase).
  static result<PrivateKey> load(const std::filesystem::path& file);
  // Reads `file`, or makes an ed25519 key there (0600, and its .pub beside it with `comment`),
  // atomically: of two at once, both get the same key.
  static result<PrivateKey> load_or_make(const std::filesystem::path& file,
                                         const std::string& comment);
  PublicKey public_key() const;
  ssh_key_struct* handle() const { return key_.get(); }

 private:
  std::shared_ptr<ssh_key_struct> key_;
};

}  // namespace protocol::ssh
