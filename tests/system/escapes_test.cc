// Ways out of a sandbox. Each is a script that prints ESCAPED when it got at something that the
// sandbox was not given. Inside, every one has to fail; without isolation, those that are marked so
// have to succeed, or the table would prove nothing.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cstddef>
#include <fstream>
#include <set>
#include <sstream>

#include "protocol/os/fd.h"
#include "protocol/os/paths.h"
#include "tests/support/catch.h"
#include "tests/support/places.h"
#include "tests/support/system.h"

using test::How;
using test::Machine;
namespace fs = std::filesystem;
namespace os = protocol::os;

namespace {

// Whether it works without isolation: for every user, for root alone, never, or on some machines.
enum class Without { works, works_for_root, fails, depends };
// In which sandbox it has to fail.
enum class Network { host, none };

struct Escape {
  const char* name;
  Without without;
  const char* script;
  Network network = Network::host;
};

constexpr auto kWorks = Without::works;
constexpr auto kRoot = Without::works_for_root;
constexpr auto kFails = Without::fails;
constexpr auto kDepends = Without::depends;

// The scripts have: STATE (the agent's), SECRET (a file of the user's), OTHER (the id of another
// sandbox), PID (a process outside), ABSTRACT, PORT, SHM, KEY (what the test has open); target, a
// process that is none of the job's; and py, a Python with `libc` and `check`.
const Escape kEscapes[] = {
    // ---- files of others
    {"another sandbox's files", kWorks,
     "grep -q gold $STATE/sandboxes/$OTHER/workspace/treasure && esc"},
    {"the list of sandboxes", kWorks, "[ -n \"$(ls $STATE/sandboxes)\" ] && esc"},
    {"the agent's database", kWorks, "[ -n \"$(head -c 6 $STATE/agent.db)\" ] && esc"},
    {"the agent's socket", kWorks, "py 'check(connect(os.environ[\"STATE\"] + \"/agent.sock\"))'"},
    {"the host key", kWorks, "grep -q KEY $STATE/host_key && esc"},
    {"who may come in", kWorks, "echo >> $STATE/authorized_keys && esc"},
    {"a file of the user's", kWorks, "grep -q gold $SECRET && esc"},
    {"the user's ssh keys", kWorks, "grep -q gold ${SECRET%/*}/.ssh/id_ed25519 && esc"},
    {"the client's key", kWorks, "grep -q KEY $CONFIG/id_ed25519 && esc"},
    {"a link to a file outside", kWorks, "ln -sf $SECRET way; grep -q gold way && esc"},
    {"a hard link to a file outside", kWorks,
     "rm -f hard; ln $SECRET hard && grep -q gold hard && esc"},
    {"another directory's entry above the workspace", kWorks,
     "grep -q gold ../../../../../../../../$SECRET && esc"},
    {"a file written beside the user's", kWorks, "touch ${SECRET%/*}/written && esc"},
    {"a file in the box's /tmp", kWorks, "[ -e $MARKER ] && esc"},
    {"a file written to /usr", kRoot,
     "touch /usr/sandbox-escaped && rm /usr/sandbox-escaped && esc"},
    {"a file written to /etc", kRoot,
     "touch /etc/sandbox-escaped && rm /etc/sandbox-escaped && esc"},
    {"a program of the box replaced", kRoot, "[ -w /usr/bin/env ] && : >> /usr/bin/env && esc"},
    {"a directory made in /", kRoot, "mkdir /sandbox-escaped && rmdir /sandbox-escaped && esc"},

    // ---- the sandbox's own supervisor
    {"the supervisor's socket by its path on the box", kWorks,
     "py 'check(connect(os.environ[\"STATE\"] + \"/sandboxes/\" + os.environ[\"SANDBOX_ID\"] + "
     "\"/supervisor.sock\"))'"},
    {"the supervisor's socket by its path inside", kWorks,
     "for s in /run/sandbox/*/supervisor.sock $HOME/../supervisor.sock; do export S=$s; py "
     "'check(connect(os.environ[\"S\"]))'; done"},
    {"the supervisor's socket by the supervisor's root", kFails,
     "for s in /proc/1/root/run/sandbox/*/supervisor.sock; do export S=$s; py "
     "'check(connect(os.environ[\"S\"]))'; done"},
    {"the store of snapshots", kWorks,
     "for d in /run/sandbox/*/store.git $HOME/../store.git /proc/1/root/run/sandbox/*/store.git; "
     "do "
     "touch $d/escaped && esc; done"},
    {"the journals of other commands", kWorks,
     "for d in /run/sandbox/*/logs $HOME/../logs /proc/1/root/run/sandbox/*/logs; do ls $d/*.log "
     "&& "
     "esc; done"},
    {"what hides the supervisor's files taken away", kFails,
     "py 'libc.umount2(b\"/run/sandbox\", 2)'; ls /run/sandbox/*/logs && esc"},
    {"the supervisor's program replaced", kFails,
     "for f in /run/sandbox/sandbox-agent; do [ -w $f ] && esc; done"},

    // ---- processes
    {"a process outside seen", kWorks, "[ -d /proc/$PID ] && esc"},
    {"a process outside signalled", kWorks, "kill -0 $PID && esc"},
    {"a process outside seen in its root", kWorks,
     "for r in /proc/[0-9]*/root; do grep -q gold $r$SECRET && esc && break; done"},
    {"a process traced", kRoot,
     "py 'r = libc.ptrace(16, int(os.environ[\"target\"]), 0, 0); check(r == 0)'"},
    {"a process's memory", kRoot, "py 'open(\"/proc/%s/mem\" % os.environ[\"target\"]); esc()'"},
    {"a process's open files", kWorks, "readlink /proc/$target/fd/0 && esc"},
    {"a process's environment", kWorks, "[ -n \"$(tr -d '\\0' < /proc/$target/environ)\" ] && esc"},
    {"a secret in the agent's environment", kWorks,
     "cat /proc/[0-9]*/environ | tr '\\0' '\\n' | grep -aq ^SANDBOX_TEST_TOKEN= && esc"},
    {"the descriptors that were inherited", kFails,
     "py 'check([f for f in os.listdir(\"/proc/self/fd\") if int(f) > 3])'"},

    // ---- rights
    {"a program with the set-user-id bit", kWorks, "py 'check(libc.prctl(39, 0, 0, 0, 0) == 0)'"},
    {"a program that becomes another user", kRoot,
     "cp /usr/bin/id . && chown 65534 id && chmod u+s id && [ \"$(./id -u)\" = 65534 ] && esc"},
    {"capabilities", kRoot, "grep -q 'CapEff:.*[1-9a-f]' /proc/self/status && esc"},
    {"capabilities of programs to come", kRoot,
     "grep -q 'CapBnd:.*[1-9a-f]' /proc/self/status && esc"},
    {"a user namespace", kRoot, "unshare -Ur true && esc"},
    {"a mount namespace", kRoot, "unshare -m true && esc"},
    {"something mounted", kRoot, "mkdir -p m; mount -t tmpfs none m && umount m && esc"},
    {"another root directory", kRoot, "mkdir -p c; py 'os.chroot(\"c\"); esc()'"},
    {"a device made", kRoot, "rm -f d; mknod d c 1 3 && esc"},
    {"a disk", kDepends,
     "for d in /dev/vda /dev/sda /dev/nvme0n1 /dev/mem; do head -c 1 $d && esc; done"},
    {"a setting of the kernel", kRoot,
     "f=/proc/sys/kernel/core_pattern; v=$(cat $f) && printf %s \"$v\" > $f && esc"},
    {"a setting of a device", kRoot,
     "[ -n \"$(find /sys -maxdepth 4 -type f -writable)\" ] && esc"},
    {"a control group", kRoot,
     "[ -n \"$(find /sys/fs/cgroup -maxdepth 3 -name cgroup.procs -writable)\" ] && esc"},
    {"interrupts", kDepends, "[ -n \"$(find /proc/irq -type f -writable)\" ] && esc"},
    {"the kernel's emergency keys", kDepends, "[ -w /proc/sysrq-trigger ] && esc"},
    {"any setting of the kernel", kRoot,
     "[ -n \"$(find /proc/sys -maxdepth 3 -type f -writable)\" ] && esc"},
    {"the host's name", kRoot,
     "py 'import socket; socket.sethostname(socket.gethostname()); esc()'"},
    {"the kernel's log", kRoot, "dmesg | grep -q . && esc"},
    {"every packet of the box", kRoot,
     "py 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW); esc()'"},

    // ---- what the box's processes share
    {"the box's shared memory", kWorks,
     "py 'check(libc.shmget(int(os.environ[\"SHM\"]), 0, 0) >= 0)'"},
    {"the box's named shared memory", kWorks, "[ -e /dev/shm/$NAMED ] && esc"},
    {"the agent's keys in the kernel", kWorks,
     "py 'check(libc.syscall(KEYCTL, 10, -3, b\"user\", os.environ[\"KEY\"].encode(), 0) > 0)'"},
    {"an abstract socket", kWorks, "py 'check(connect(\"\\0\" + os.environ[\"ABSTRACT\"]))'"},
    {"an abstract socket, without a network", kWorks,
     "py 'check(connect(\"\\0\" + os.environ[\"ABSTRACT\"]))'", Network::none},
    {"the box's loopback, without a network", kWorks,
     "py 'import socket; socket.create_connection((\"127.0.0.1\", int(os.environ[\"PORT\"])), 5); "
     "esc()'",
     Network::none},
    {"the box's interfaces, without a network", kWorks,
     "[ \"$(ls /sys/class/net /proc/self/net/dev_snmp6 | wc -w)\" -gt 3 ] && esc; "
     "grep -v 'lo:' /proc/net/dev | grep -q ': ' && esc",
     Network::none},
};

// This one always gets out: a table without it did not run.
constexpr std::size_t kControl = 99, kFirst = 100;

constexpr const char* kPrelude = R"sh(
esc() { echo ESCAPED; }
target=$PID
[ "$(cat /proc/1/comm)" != sandbox-agent ] || target=1
export target
py() { /usr/bin/python3 -c '
import ctypes, os, platform
libc = ctypes.CDLL(None)
KEYCTL = {"x86_64": 250}.get(platform.machine(), 219)
def esc(): print("ESCAPED")
def check(true):
    if true: esc()
def connect(path):
    import socket
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    return True
'"$1"; }
)sh";

// What a table's scripts try to get at.
class Outside {
 public:
  explicit Outside(Machine& machine) : name_("sandbox-test-" + os::random_hex(8)) {
    test::write_text(machine.home() / "secret", "gold\n");
    test::write_text(machine.home() / ".ssh/id_ed25519", "gold\n");
    test::write_text(marker(), "");
    test::write_text(fs::path("/dev/shm") / name_, "gold\n");
    shared_ = ::shmget(key_, 4096, IPC_CREAT | 0600);
    ::syscall(SYS_add_key, "user", name_.c_str(), "gold", 4, -3);
    abstract_ = os::Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un local = {};
    local.sun_family = AF_UNIX;
    name_.copy(local.sun_path + 1, name_.size());
    auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name_.size());
    REQUIRE(::bind(abstract_.get(), reinterpret_cast<sockaddr*>(&local), size) == 0);
    REQUIRE(::listen(abstract_.get(), 16) == 0);
    loopback_ = os::Fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address = {};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    REQUIRE(::bind(loopback_.get(), reinterpret_cast<sockaddr*>(&address), length) == 0);
    REQUIRE(::listen(loopback_.get(), 16) == 0);
    ::getsockname(loopback_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ::ntohs(address.sin_port);
  }
  ~Outside() {
    ::shmctl(shared_, IPC_RMID, nullptr);
    std::error_code ignored;
    fs::remove(marker(), ignored);
    fs::remove(fs::path("/dev/shm") / name_, ignored);
  }
  fs::path marker() const { return fs::path("/tmp") / name_; }

  std::string variables() const {
    std::ostringstream out;
    out << "export MARKER=" << marker().native() << " NAMED=" << name_ << " KEY=" << name_
        << " ABSTRACT=" << name_ << " PORT=" << port_ << " SHM=" << key_ << "\n";
    return out.str();
  }

 private:
  std::string name_;
  key_t key_ = static_cast<key_t>(0x5b000000 | (::getpid() & 0xffffff));
  int shared_ = -1;
  os::Fd abstract_, loopback_;
  int port_ = 0;
};

bool has_landlock_scopes() {
#ifdef SYS_landlock_create_ruleset
  return ::syscall(SYS_landlock_create_ruleset, nullptr, 0, 1) >= 6;
#else
  return false;
#endif
}

std::string id_in(const std::string& json) {
  return std::string(boost::json::parse(json).at("RunID").as_string());
}

// Which of the table's scripts, by number, escaped from a sandbox made with these options.
std::set<std::size_t> escaped(Machine& machine, const fs::path& project,
                              const std::vector<std::string>& options) {
  std::vector<std::string> words = {"exec"};
  words.insert(words.end(), options.begin(), options.end());
  for (const char* word :
       {"--", "sh", "-c",
        "for f in escapes/*.sh; do timeout -s KILL 30 sh $f 2>/dev/null </dev/null | grep -q "
        "ESCAPED && echo $f; done; true"})
    words.emplace_back(word);
  auto ended = machine.run(words, {.directory = project});
  INFO(ended.err);
  REQUIRE(ended.status == 0);
  std::set<std::size_t> numbers;
  std::istringstream lines(ended.out);
  for (std::string line; std::getline(lines, line);)
    numbers.insert(std::stoul(line.substr(std::string("escapes/").size())));
  CHECK(numbers.contains(kControl));
  return numbers;
}

void make_project(const fs::path& project, const std::string& config, const std::string& prelude) {
  test::write_text(project / ".sandbox.yml", config);
  auto write = [&](std::size_t number, const std::string& script) {
    test::write_text(project / "escapes" / (std::to_string(number) + ".sh"),
                     prelude + script + "\n");
  };
  write(kControl, "py 'check(True)'");
  std::size_t number = kFirst;
  for (const Escape& escape : kEscapes) write(number++, escape.script);
}

}  // namespace

TEST_CASE("what runs in a sandbox sees nothing of the box that it was not given [X15]",
          "[X15][escapes]") {
  Machine machine;
  machine.environment["SANDBOX_ISOLATION"] = "auto";
  machine.environment["SANDBOX_TEST_TOKEN"] = "gold";
  Outside outside(machine);

  auto other = machine.root() / "other";
  test::write_text(other / "treasure", "gold\n");
  auto made =
      machine.run({"exec", "--json", "--isolation", "bwrap", "--", "true"}, {.directory = other});
  if (made.status != 0 && made.out.find("no isolation") != std::string::npos) {
    WARN("skipped: no isolation here: " << made.out);
    return;
  }
  INFO(made.err << made.out);
  REQUIRE(made.status == 0);
  auto outsider = machine.start_program({"sleep", "600"});

  std::string prelude =
      "export STATE=" + (machine.state() / "agent").native() +
      " CONFIG=" + machine.config().native() + " SECRET=" + (machine.home() / "secret").native() +
      " OTHER=" + id_in(made.out.substr(made.out.rfind('{', made.out.rfind("RunID")))) +
      " PID=" + std::to_string(outsider.pid()) + "\n" + outside.variables() + kPrelude;
  auto with = machine.root() / "with", apart = machine.root() / "apart",
       without = machine.root() / "without";
  make_project(with, "", prelude);
  make_project(apart, "network: none\n", prelude);
  make_project(without, "", prelude);
  auto inside = escaped(machine, with, {"--isolation", "bwrap"});
  auto alone = escaped(machine, apart, {"--isolation", "bwrap"});
  auto nowhere = escaped(machine, without, {"--isolation", "none"});

  std::size_t number = kFirst;
  for (const Escape& escape : kEscapes) {
    bool by_landlock = std::string(escape.name) == "an abstract socket";
    INFO(escape.name << " (" << number << ".sh)");
    if (by_landlock && !has_landlock_scopes()) {
      WARN("skipped: before Linux 6.12 the network's abstract sockets are the box's");
    } else if (escape.network == Network::host) {
      CHECK(!inside.contains(number));
    }
    CHECK(!alone.contains(number));
    bool works = escape.without == Without::works ||
                 (escape.without == Without::works_for_root && ::geteuid() == 0);
    bool known = works || escape.without == Without::fails;
    if (known) CHECK(nowhere.contains(number) == works);
    ++number;
  }
}

namespace {

// Types a line into the terminal that it runs on, and says whether the kernel let it.
constexpr const char* kType =
    "import fcntl, os\n"
    "try:\n"
    "  for c in b'x\\n': fcntl.ioctl(os.open('/dev/tty', os.O_RDWR), 0x5412, bytes([c]))\n"
    "  print('typed')\n"
    "except OSError as why: print('refused', why)\n";
// What waits to be read on the terminal that it runs on.
constexpr const char* kWaiting =
    "import array, fcntl, termios\n"
    "n = array.array('i', [0]); fcntl.ioctl(0, termios.FIONREAD, n); print('waiting', n[0])\n";

}  // namespace

TEST_CASE("nothing is typed into the terminal of who runs a command", "[escapes]") {
  for (const char* isolation : {"none", "bwrap"}) {
    INFO(isolation);
    Machine machine;
    machine.environment["SANDBOX_ISOLATION"] = isolation;
    auto made = machine.run({"start"});
    if (made.status != 0) {
      WARN("skipped: no isolation here: " << made.err);
      return;
    }
    auto shown = [&](std::vector<std::string> typer) {
      std::string script = "\"$@\"; /usr/bin/python3 -c \"$WAITING\"";
      std::vector<std::string> words = {"sh", "-c", script, "sh"};
      words.insert(words.end(), typer.begin(), typer.end());
      words.insert(words.end(), {"/usr/bin/python3", "-c", kType});
      return machine.run_program(words, {.terminal = true, .environment = {{"WAITING", kWaiting}}});
    };
    auto here = shown({});
    INFO(here.out);
    if (here.out.find("waiting 2") == std::string::npos) {
      WARN("skipped: this kernel lets nobody type: " << here.out);
      return;
    }
    auto there = shown({SANDBOX_BIN_DIR "/sandbox", "exec", "-t", "--"});
    INFO(there.out);
    CHECK((there.out.find("typed") != std::string::npos ||
           there.out.find("refused") != std::string::npos));
    CHECK(there.out.find("waiting 0") != std::string::npos);
  }
}

TEST_CASE("an ignored file of secrets stays at home", "[X15]") {
  Machine machine;
  machine.environment["SANDBOX_ISOLATION"] = "auto";
  machine.make_repository();
  test::write_text(machine.project() / ".gitignore", ".env\n");
  test::write_text(machine.project() / ".env", "TOKEN=gold\n");
  CHECK(machine.run({"exec", "--", "test", "!", "-s", ".env"}).status == 0);
  CHECK(machine.run({"exec", "--", "test", "-s", ".gitignore"}).status == 0);
  CHECK(test::file_text(machine.project() / ".env") == "TOKEN=gold\n");
}
