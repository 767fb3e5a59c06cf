// OpenSSH's client against the server, for what libssh's does differently. Skipped where there is
// no ssh.
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "protocol/wire/quoting.h"
#include "tests/support/catch.h"
#include "tests/support/ssh_world.h"

using namespace test;

namespace {

struct Scratch {
  Scratch() {
    std::string name = (std::filesystem::temp_directory_path() / "ssh-test.XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("mkdtemp");
    path = name;
  }
  ~Scratch() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

struct Output {
  int status = -1;
  std::string text;  // both streams
};

Output shell(const std::string& command) {
  Output output;
  FILE* pipe = ::popen(("{ " + command + "; } 2>&1").c_str(), "r");
  if (pipe == nullptr) throw std::runtime_error("popen");
  char buffer[4096];
  while (const std::size_t count = std::fread(buffer, 1, sizeof buffer, pipe)) {
    output.text.append(buffer, count);
  }
  const int status = ::pclose(pipe);
  output.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return output;
}

bool have_ssh() { return shell("command -v ssh").status == 0; }

std::string ssh_command(const SshWorld& world, const Scratch& scratch, const std::string& options) {
  return "ssh -F none -o BatchMode=yes -o StrictHostKeyChecking=no -o LogLevel=ERROR"
         " -o UserKnownHostsFile=/dev/null -o ConnectTimeout=20 -p " +
         std::to_string(world.server.port()) + " " + options + " -i " +
         (scratch.path / "id").string() + " sandbox@127.0.0.1 ";
}

std::string u32(std::size_t value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

std::string ssh_string(std::string_view text) { return u32(text.size()) + std::string(text); }

// An ssh-agent that owns one key and signs with nonsense.
class LyingAgent {
 public:
  LyingAgent(std::string path, const ssh::PublicKey& key) : path_(std::move(path)) {
    const std::string line = key.text();
    protocol::wire::base64_decode(line.substr(line.find(' ') + 1), blob_);
    listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    if (::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(listener_, 5) != 0) {
      throw std::runtime_error("agent socket");
    }
    thread_ = std::thread([this] { serve(); });
  }
  ~LyingAgent() {
    ::shutdown(listener_, SHUT_RDWR);
    thread_.join();
    ::close(listener_);
  }
  int signatures() const { return signatures_; }

 private:
  static bool read_exactly(int fd, char* to, std::size_t size) {
    return ::recv(fd, to, size, MSG_WAITALL) == static_cast<ssize_t>(size);
  }

  void serve() {
    for (int fd; (fd = ::accept(listener_, nullptr, nullptr)) >= 0; ::close(fd)) {
      unsigned char length[4];
      while (read_exactly(fd, reinterpret_cast<char*>(length), 4)) {
        std::string request((length[0] << 24) + (length[1] << 16) + (length[2] << 8) + length[3],
                            '\0');
        if (!read_exactly(fd, request.data(), request.size())) break;
        std::string answer(1, '\5');  // failure
        if (request[0] == 11) {
          answer = "\14" + u32(1) + ssh_string(blob_) + ssh_string("liar");
        } else if (request[0] == 13) {
          ++signatures_;
          answer = "\16" + ssh_string(ssh_string("ssh-ed25519") + ssh_string(std::string(64, 'x')));
        }
        answer = u32(answer.size()) + answer;
        if (::send(fd, answer.data(), answer.size(), MSG_NOSIGNAL) < 0) break;
      }
    }
  }

  std::string path_, blob_;
  int listener_ = -1;
  std::atomic<int> signatures_{0};
  std::thread thread_;
};

}  // namespace

TEST_CASE("OpenSSH runs commands, with their streams and statuses, one connection for many") {
  if (!have_ssh()) return;
  SshWorld world;
  Scratch scratch;
  const auto key = must(ssh::PrivateKey::load_or_make(scratch.path / "id", "test"));
  const auto path = [&](const char* name) { return (scratch.path / name).string(); };
  world.run_beside([&] {
    const std::string ssh = ssh_command(world, scratch, "");
    Output both = shell(ssh + "both >" + path("out") + " 2>" + path("err"));
    CHECK(both.status == 7);
    CHECK(shell("cat " + path("out")).text == "out");
    CHECK(shell("cat " + path("err")).text == "err");
    CHECK(shell("printf hello | " + ssh + "cat").text == "hello");
    CHECK(shell(ssh + "close </dev/null").status == 255);
    CHECK(shell(ssh + "signal KILL </dev/null").status == 255);
    CHECK(shell(ssh + "nothing </dev/null").text == "no such command\n");

    // Stdin in full, through a pipe.
    CHECK(shell("head -c 20000000 /dev/zero | " + ssh + "count").text == "20000000");
    CHECK(shell(ssh + "'bytes 20000000' </dev/null | wc -c").text == "20000000\n");
    CHECK(shell(ssh + "-tt env </dev/null").text.find("24x80") == std::string::npos);

    const std::string shared = ssh_command(
        world, scratch, "-o ControlMaster=auto -o ControlPersist=30 -o ControlPath=" + path("mux"));
    CHECK(shell(shared + "'exit 3' </dev/null").status == 3);
    for (int i = 0; i < 10; ++i) CHECK(shell(shared + "'exit 4' </dev/null").status == 4);
    shell(shared + "-O exit");

    const std::string rekeying = ssh_command(world, scratch, "-o RekeyLimit=1M");
    CHECK(shell(rekeying + "'bytes 20000000' </dev/null | wc -c").text == "20000000\n");
    CHECK(shell("head -c 20000000 /dev/zero | " + rekeying + "count").text == "20000000");
  });
  // The shared ones came over one connection.
  CHECK(world.server.accepted == 11);
}

// libssh drops a request with a wrong signature without a word; the client would wait for ever.
TEST_CASE("a wrong signature is answered soon") {
  if (!have_ssh()) return;
  SshWorld world;
  Scratch scratch;
  const auto key = must(ssh::PrivateKey::load_or_make(scratch.path / "id", "test"));
  std::filesystem::remove(scratch.path / "id");  // only the agent has it
  std::filesystem::rename(scratch.path / "id.pub", scratch.path / "id");
  LyingAgent agent((scratch.path / "agent").string(), key.public_key());
  world.run_beside([&] {
    const std::string ssh =
        ssh_command(world, scratch,
                    "-o IdentitiesOnly=yes -o IdentityAgent=" + (scratch.path / "agent").string());
    const Output denied = shell("timeout 20 " + ssh + "'exit 0' </dev/null");
    CHECK(denied.status == 255);
    CHECK_THAT(denied.text, Catch::Contains("Permission denied (publickey)"));
  });
  CHECK(agent.signatures() == 1);
  CHECK(world.server.let_in == 0);
}
