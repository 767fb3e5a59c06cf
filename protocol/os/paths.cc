#include "protocol/os/paths.h"

#include <fcntl.h>
#include <limits.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cassert>
#include <cerrno>
#include <random>
#include <vector>

#include "protocol/os/fd.h"

extern char** environ;

namespace protocol::os {

using wire::Errc;
using wire::Failure;
using wire::result;
namespace fs = std::filesystem;

namespace {

struct Account {
  std::string name, home, shell;
};

Account account() {
  std::vector<char> buffer(16 * 1024);
  struct passwd entry, *found = nullptr;
  if (::getpwuid_r(::geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 || !found)
    return {};
  auto text = [](const char* value) { return std::string(value ? value : ""); };
  return {text(entry.pw_name), text(entry.pw_dir), text(entry.pw_shell)};
}

std::string get(const Environment& env, const char* name) {
  auto found = env.find(name);
  return found == env.end() ? std::string() : found->second;
}

result<fs::path> base_directory(const Environment& env, const char* variable, const char* beneath) {
  std::string value = get(env, variable);
  if (value.starts_with('/')) return fs::path(value);
  auto home = home_directory(env);
  if (!home) return home.error();
  return *home / beneath;
}

std::string first_line(const char* file) {
  auto text = read_file(file, 4096);
  if (!text) return {};
  return text->substr(0, text->find('\n'));
}

std::function<int(std::string_view)>& write_fault() {
  static std::function<int(std::string_view)> fault;
  return fault;
}

bool faulted(std::string_view call) {
  if (!write_fault()) return false;
  int error = write_fault()(call);
  errno = error;
  return error != 0;
}

bool write_fully(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    ssize_t count = faulted("write") ? -1 : ::write(fd, bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(count));
  }
  return true;
}

}  // namespace

Environment environment() {
  Environment env;
  for (char** entry = environ; entry && *entry; ++entry) {
    std::string_view text = *entry;
    std::size_t equals = text.find('=');
    if (equals == std::string_view::npos || equals == 0) continue;
    env.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return env;
}

result<fs::path> home_directory(const Environment& env) {
  std::string home = get(env, "HOME");
  if (!home.starts_with('/')) home = account().home;
  if (!home.starts_with('/')) return Failure(Errc::not_found, "a home directory (HOME is not set)");
  return fs::path(home);
}

result<fs::path> state_home(const Environment& env) {
  return base_directory(env, "XDG_STATE_HOME", ".local/state");
}

result<fs::path> config_home(const Environment& env) {
  return base_directory(env, "XDG_CONFIG_HOME", ".config");
}

std::string user_name() {
  Account ours = account();
  return ours.name.empty() ? "uid-" + std::to_string(::geteuid()) : ours.name;
}

std::string login_shell() {
  Account ours = account();
  return ours.shell.starts_with('/') ? ours.shell : "/bin/sh";
}

std::string host_name() {
  char name[HOST_NAME_MAX + 1] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return "localhost";
  return name;
}

std::string machine_id() {
  for (const char* file : {"/etc/machine-id", "/var/lib/dbus/machine-id", "/etc/hostid"}) {
    std::string id = first_line(file);
    if (!id.empty() && id != "uninitialized") return id;
  }
  return {};
}

std::string boot_id() { return first_line("/proc/sys/kernel/random/boot_id"); }

std::string random_hex(std::size_t digits) {
  // Not <random>'s engines: these ids are also secrets.
  std::string bytes((digits + 1) / 2, '\0');
  if (!bytes.empty() && ::getentropy(bytes.data(), std::min<std::size_t>(bytes.size(), 256)) != 0)
    throw std::runtime_error("no random numbers from the system");
  assert(bytes.size() <= 256);
  std::string hex;
  for (unsigned char byte : bytes) {
    hex += "0123456789abcdef"[byte >> 4];
    hex += "0123456789abcdef"[byte & 15];
  }
  hex.resize(digits);
  return hex;
}

result<void> make_private_directory(const fs::path& directory) {
  // Without the trailing slash, which would make lstat follow a link.
  fs::path path = directory.has_filename() ? directory : directory.parent_path();
  if (::mkdir(path.c_str(), 0700) != 0) {
    if (errno == ENOENT && path.has_parent_path() && path.parent_path() != path) {
      struct stat above;
      if (::stat(path.parent_path().c_str(), &above) == 0) return errno_failure(ENOENT, path);
      auto made = make_private_directory(path.parent_path());
      if (!made) return made;
      if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return errno_failure(errno, path);
    } else if (errno != EEXIST) {
      return errno_failure(errno, path.native());
    }
  }
  // Opened and then looked at, so that nobody can swap it between.
  Fd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd && (errno == ENOTDIR || errno == ELOOP))
    return Failure(Errc::denied, path.native() + ": not a directory");
  if (!fd) return errno_failure(errno, path.native());
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return errno_failure(errno, path.native());
  if (status.st_uid != ::geteuid())
    return Failure(Errc::denied, path.native() + ": belongs to another user");
  if ((status.st_mode & 022) != 0)
    return Failure(Errc::denied, path.native() + ": others may write to it (chmod go-w)");
  if ((status.st_mode & 077) != 0 && ::fchmod(fd.get(), status.st_mode & 0700) != 0)
    return errno_failure(errno, path.native());
  return {};
}

result<void> write_file(const fs::path& file, std::string_view bytes, mode_t mode) {
  fs::path temporary = file;
  temporary += ".tmp-" + random_hex(12);
  Fd fd(faulted("open") ? -1
                        : ::open(temporary.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
  if (!fd) return errno_failure(errno, file.native());
  auto failed = [&] {
    Failure failure = errno_failure(errno, file.native());
    ::unlink(temporary.c_str());
    return failure;
  };
  // The mode is the one asked for, whatever the umask.
  if (::fchmod(fd.get(), mode) != 0 || !write_fully(fd.get(), bytes)) return failed();
  if (faulted("fsync") || ::fsync(fd.get()) != 0) return failed();
  // Some file systems tell of a full disk here.
  if (::close(fd.release()) != 0 && errno != EINTR) return failed();
  if (faulted("rename") || ::rename(temporary.c_str(), file.c_str()) != 0) return failed();
  if (faulted("fsync directory")) return errno_failure(errno, file.native());
  return sync_directory(file.has_parent_path() ? file.parent_path() : fs::path("."));
}

result<std::string> read_file(const fs::path& file, std::size_t limit) {
  Fd fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return errno_failure(errno, file.native());
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) return errno_failure(errno, file.native());
  if (!S_ISREG(status.st_mode))
    return Failure(Errc::refused, file.native() + ": not a regular file");
  std::string bytes;
  char buffer[16 * 1024];
  for (;;) {
    ssize_t count = ::read(fd.get(), buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno_failure(errno, file.native());
    if (count == 0) return bytes;
    if (bytes.size() + static_cast<std::size_t>(count) > limit)
      return Failure(Errc::too_large,
                     file.native() + ": larger than " + std::to_string(limit) + " bytes");
    bytes.append(buffer, static_cast<std::size_t>(count));
  }
}

result<void> sync_directory(const fs::path& directory) {
  Fd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return errno_failure(errno, directory.native());
  if (::fsync(fd.get()) != 0 && errno != EINVAL) return errno_failure(errno, directory.native());
  return {};
}

void set_write_fault(std::function<int(std::string_view)> fault) {
  write_fault() = std::move(fault);
}

}  // namespace protocol::os
