#include "protocol/ssh/key.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>

#include "protocol/os/fd.h"
#include "protocol/ssh/handles.h"

namespace protocol::ssh {

using wire::Errc;
using wire::Failure;

namespace {

std::shared_ptr<ssh_key_struct> share(ssh_key key) { return {key, LibsshDeleter{}}; }

Failure system_failure(const std::string& what) { return os::errno_failure(errno, what); }

result<void> write_durably(int fd, std::string_view bytes, const std::string& name) {
  if (auto written = os::write_all(fd, bytes); !written) {
    return Failure(written.error().code, name + ": " + written.error().what);
  }
  if (::fsync(fd) != 0) return system_failure(name);
  return {};
}

// A file of our own beside `file`, removed at the end of its life.
class Temporary {
 public:
  static result<Temporary> beside(const std::filesystem::path& file, mode_t mode) {
    std::string name = file.string() + ".XXXXXX";
    os::Fd fd(::mkostemp(name.data(), O_CLOEXEC));
    if (!fd) return system_failure(file.string());
    Temporary made(std::move(name), std::move(fd));
    if (::fchmod(made.fd_.get(), mode) != 0) return system_failure(file.string());
    return made;
  }
  Temporary(Temporary&& other) noexcept
      : name_(std::exchange(other.name_, {})), fd_(std::move(other.fd_)) {}
  Temporary& operator=(Temporary&&) = delete;
  ~Temporary() {
    if (!name_.empty()) ::unlink(name_.c_str());
  }
  const std::string& name() const { return name_; }
  int fd() const { return fd_.get(); }

 private:
  Temporary(std::string name, os::Fd fd) : name_(std::move(name)), fd_(std::move(fd)) {}
  std::string name_;
  os::Fd fd_;
};

// Beside the private key, for people to copy.
result<void> write_public(std::filesystem::path file, const PublicKey& key,
                          const std::string& comment) {
  file += ".pub";
  const std::string line = key.text() + (comment.empty() ? "" : " " + comment) + "\n";
  auto temporary = Temporary::beside(file, 0644);
  if (!temporary) return temporary.error();
  if (auto written = write_durably(temporary->fd(), line, file.string()); !written) return written;
  if (::rename(temporary->name().c_str(), file.c_str()) != 0) return system_failure(file.string());
  return {};
}

}  // namespace

result<PublicKey> PublicKey::parse(const std::string& type_and_base64) {
  const auto space = type_and_base64.find(' ');
  const std::string type = type_and_base64.substr(0, space);
  const auto begin = type_and_base64.find_first_not_of(' ', space);
  if (space == std::string::npos || begin == std::string::npos) {
    return Failure(Errc::bad_input, "a public key is written TYPE BASE64");
  }
  const std::string base64 =
      type_and_base64.substr(begin, type_and_base64.find_first_of(" \t\r\n", begin) - begin);
  const ssh_keytypes_e kind = ssh_key_type_from_name(type.c_str());
  ssh_key key = nullptr;
  if (kind == SSH_KEYTYPE_UNKNOWN ||
      ssh_pki_import_pubkey_base64(base64.c_str(), kind, &key) != SSH_OK) {
    return Failure(Errc::bad_input, "this is no public key that we know: " + type);
  }
  return PublicKey(share(key));
}

std::string PublicKey::type() const {
  const char* name = key_ ? ssh_key_type_to_char(ssh_key_type(key_.get())) : nullptr;
  return name != nullptr ? name : "";
}

std::string PublicKey::text() const {
  char* base64 = nullptr;
  if (!key_ || ssh_pki_export_pubkey_base64(key_.get(), &base64) != SSH_OK) return {};
  const TextHandle owned(base64);
  return type() + " " + base64;
}

std::string PublicKey::fingerprint() const {
  unsigned char* hash = nullptr;
  std::size_t length = 0;
  if (!key_ || ssh_get_publickey_hash(key_.get(), SSH_PUBLICKEY_HASH_SHA256, &hash, &length) != 0) {
    return {};
  }
  const TextHandle text(ssh_get_fingerprint_hash(SSH_PUBLICKEY_HASH_SHA256, hash, length));
  ssh_clean_pubkey_hash(&hash);
  return text ? std::string(text.get()) : std::string();
}

bool PublicKey::operator==(const PublicKey& other) const {
  if (!key_ || !other.key_) return !key_ && !other.key_;
  return ssh_key_cmp(key_.get(), other.key_.get(), SSH_KEY_CMP_PUBLIC) == 0;
}

result<PrivateKey> PrivateKey::generate_ed25519() {
  ssh_key key = nullptr;
  if (ssh_pki_generate(SSH_KEYTYPE_ED25519, 0, &key) != SSH_OK) {
    return Failure(Errc::io, "no key could be made");
  }
  return PrivateKey(share(key));
}

result<PrivateKey> PrivateKey::load(const std::filesystem::path& file) {
  // libssh says only that it failed: the system knows why.
  const os::Fd readable(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!readable) return system_failure(file.string());
  // Without a callback libssh asks a terminal for a passphrase.
  const auto no_passphrase = [](const char*, char*, std::size_t, int, int, void*) { return -1; };
  ssh_key key = nullptr;
  if (ssh_pki_import_privkey_file(file.c_str(), nullptr, no_passphrase, nullptr, &key) != SSH_OK) {
    return Failure(
        Errc::bad_input,
        file.string() + " is no private key, or has a passphrase, which is not supported");
  }
  return PrivateKey(share(key));
}

result<PrivateKey> PrivateKey::load_or_make(const std::filesystem::path& file,
                                            const std::string& comment) {
  auto loaded = load(file);
  if (!loaded && loaded.error().code != Errc::not_found) return loaded;
  if (loaded) {
    // Whoever made it may have been stopped before it came to this.
    if (::access((file.string() + ".pub").c_str(), F_OK) != 0) {
      (void)write_public(file, loaded->public_key(), comment);
    }
    return loaded;
  }

  auto made = generate_ed25519();
  if (!made) return made;
  auto temporary = Temporary::beside(file, 0600);
  if (!temporary) return temporary.error();
  if (ssh_pki_export_privkey_file(made->handle(), nullptr, nullptr, nullptr,
                                  temporary->name().c_str()) != SSH_OK) {
    return Failure(Errc::io, file.string() + ": the key could not be written");
  }
  if (::fsync(temporary->fd()) != 0) return system_failure(file.string());
  // link() gives the name to one of several at once, and never to half a key.
  if (::link(temporary->name().c_str(), file.c_str()) != 0) {
    if (errno != EEXIST) return system_failure(file.string());
    return load(file);
  }
  if (auto written = write_public(file, made->public_key(), comment); !written) {
    return written.error();
  }
  return made;
}

PublicKey PrivateKey::public_key() const {
  ssh_key key = nullptr;
  if (!key_ || ssh_pki_export_privkey_to_pubkey(key_.get(), &key) != SSH_OK) return PublicKey();
  return PublicKey(share(key));
}

}  // namespace protocol::ssh
