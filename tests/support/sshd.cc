#include "tests/support/sshd.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <exception>
#include <stdexcept>

#include "protocol/os/paths.h"
#include "protocol/ssh/key.h"

namespace test {
namespace fs = std::filesystem;
namespace os = protocol::os;

namespace {

constexpr const char* kSshd = "/usr/sbin/sshd";

// -1, or a socket on this port of the loopback; with 0 on any.
int listen_on(int port, int* got) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(fd, generic, size) != 0 || ::getsockname(fd, generic, &size) != 0) {
    ::close(fd);
    return -1;
  }
  *got = ntohs(address.sin_port);
  return fd;
}

int free_port() {
  int port = 0;
  int fd = listen_on(0, &port);
  if (fd < 0) {
    throw std::runtime_error("no free port");
  }
  ::close(fd);
  return port;
}

bool answers(int port) {
  int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  bool connected = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
  ::close(fd);
  return connected;
}

void write_private(const fs::path& file, const std::string& text) {
  write_text(file, text);
  fs::permissions(file, fs::perms::owner_read | fs::perms::owner_write);
}

protocol::ssh::PublicKey make_key(const fs::path& file) {
  auto key = protocol::ssh::PrivateKey::load_or_make(file, "test");
  if (!key) {
    throw std::runtime_error("no key: " + key.error().what);
  }
  return key->public_key();
}

}  // namespace

Sshd::Sshd(std::string host) : host_(std::move(host)) {
  if (::access(kSshd, X_OK) != 0) {
    throw std::runtime_error("there is no sshd here: scripts/setup --tests installs it");
  }
  std::string directory = "/tmp/sbs-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    throw std::runtime_error("mkdtemp failed");
  }
  root_ = directory;
  fs::create_directories(home());
  if (::geteuid() == 0) {
    std::error_code error;
    fs::create_directories("/run/sshd", error);  // where sshd drops its privileges
  }
  make_key(root_ / "host_key");
  auto user = make_key(root_ / "user_key");
  write_private(root_ / "authorized_keys", user.text() + "\n");
  for (int attempt = 0; attempt < 5 && !process_; ++attempt) {  // somebody may be faster at a port
    port_ = free_port();
    write_text(root_ / "sshd_config",
               "ListenAddress 127.0.0.1\nPort " + std::to_string(port_) +            //
                   "\nHostKey " + (root_ / "host_key").string() +                    //
                   "\nAuthorizedKeysFile " + (root_ / "authorized_keys").string() +  //
                   "\nPidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no"
                   "\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password"
                   "\nPermitUserRC no\nPrintMotd no\nSetEnv HOME=" +
                   home().string() + "\n");
    fs::path log = root_ / "sshd.log";
    os::Fd log_fd(::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    os::Spawn spawn;
    spawn.argv = {kSshd, "-D", "-e", "-f", (root_ / "sshd_config").string()};
    spawn.stderr_fd = log_fd.get();
    auto process = os::Process::start(spawn);
    if (!process) {
      throw std::runtime_error("no sshd: " + process.error().what);
    }
    process_ = std::move(*process);
    bool ended = false;
    eventually([&] {
      ended =
          ::kill(process_->pid(), 0) != 0 || this->log().find("Cannot bind") != std::string::npos;
      return ended || answers(port_);
    });
    if (ended) {
      stop();
    }
  }
  if (!process_) {
    throw std::runtime_error("sshd does not listen:\n" + log());
  }
}

Sshd::~Sshd() {
  stop();
  if (std::uncaught_exceptions() == 0) {
    std::error_code error;
    fs::remove_all(root_, error);
  }
}

void Sshd::stop() {
  if (process_) {
    static_cast<void>(process_->kill(SIGTERM));
    process_->wait_blocking();
    process_.reset();
  }
}

void Sshd::introduce(Machine& machine) {
  auto host_key = protocol::ssh::PrivateKey::load(root_ / "host_key");
  write_text(root_ / "known_hosts", host_ + " " + host_key->public_key().text() + "\n");
  fs::path config = machine.root() / "ssh_config";
  write_private(config, file_text(config) + "Host " + host_ + "\n  HostName 127.0.0.1\n  Port " +
                            std::to_string(port_) + "\n  User " + os::user_name() +
                            "\n  IdentityFile " + (root_ / "user_key").string() +
                            "\n  IdentitiesOnly yes\n  IdentityAgent none\n  HostKeyAlias " +
                            host_ + "\n  UserKnownHostsFile " + (root_ / "known_hosts").string() +
                            "\n  StrictHostKeyChecking yes\n" + client_options_);
  // ssh reads the configuration of the account's home directory, whatever HOME says.
  fs::path ssh = machine.root() / "ssh";
  write_text(ssh, "#!/bin/sh\nexec ssh -F " + config.string() + " \"$@\"\n");
  fs::permissions(ssh, fs::perms::owner_all);
  machine.environment["SANDBOX_SSH"] = ssh.string();
}

}  // namespace test
