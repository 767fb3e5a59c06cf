"""For tests that need another machine with nothing but its sshd: a real one on loopback, with a home
of its own, and a laptop whose `ssh` knows it from a private ssh_config.

Both live below one short private directory and end what they started, and nothing else. The
directory stays behind, and is named, when a test fails.
"""

import getpass
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

LIMIT = 90  # seconds that any one step may take
SSHD = shutil.which("sshd", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")


def wait_for(condition, what):
    end = time.monotonic() + LIMIT
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise AssertionError(f"not seen in {LIMIT} s: {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_program(file, text):
    file.write_text(text)
    file.chmod(0o755)


class Sshd:
    """A machine `name`: its home is empty, its PATH begins with `bin` (where a test may put programs
    of its own), and one may log in with the laptop's key. `login` is a shell command that runs
    first at each login, as a profile would."""

    def __init__(self, root, name, public_key, path=None, home="home", login=None):
        self.name = name
        self.root = root / name
        self.home = self.root / home
        self.login = login
        self.bin = self.root / "bin"
        for directory in (self.root, self.home, self.bin):
            directory.mkdir(mode=0o700)
        self.log = self.root / "sshd.log"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.root / "key"],
                       check=True, stdin=subprocess.DEVNULL)
        self.host_key = " ".join((self.root / "key.pub").read_text().split()[:2])
        (self.root / "authorized").write_text(public_key + "\n")
        self.path = path or f"{self.bin}:{os.environ['PATH']}"
        self.process = None
        self.start()

    def start(self):
        if os.geteuid() == 0:
            os.makedirs("/run/sshd", mode=0o755, exist_ok=True)
        for _ in range(5):  # another process may take the free port first
            self.port = free_port()
            (self.root / "config").write_text(
                f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.root}/key\n"
                f"AuthorizedKeysFile {self.root}/authorized\nPidFile none\nStrictModes no\n"
                "UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
                "PermitRootLogin prohibit-password\nLogLevel VERBOSE\nPrintMotd no\n"
                "MaxStartups 100\n"
                f"SetEnv \"HOME={self.home}\" \"PATH={self.path}\"\n" +
                (f"ForceCommand {self.login}; exec sh -c \"$SSH_ORIGINAL_COMMAND\"\n"
                 if self.login else ""))
            with open(self.log, "ab") as log:
                self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", self.root / "config"],
                                                stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            wait_for(lambda: self.process.poll() is not None or self.answers(), "sshd listens")
            if self.process.poll() is None:
                return
        raise AssertionError(f"sshd does not run: see {self.log}")

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def logins(self):
        return self.log.read_text().count("Accepted publickey")

    def files(self):
        """All that is below its home, sorted."""
        return sorted(str(p.relative_to(self.home)) for p in self.home.rglob("*"))

    def end(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(LIMIT)

    def fake_systemd(self, linger):
        """Just enough of systemctl --user and loginctl: it runs what the unit says."""
        (self.root / "linger").write_text(linger)
        write_program(self.bin / "loginctl", f"""#!/bin/sh
echo "loginctl $*" >>{self.root}/calls
case "$*" in
  *enable-linger*) [ "$(cat {self.root}/linger)" = allowed ] && echo yes >{self.root}/linger ;;
  *show-user*) echo "Linger=$(grep -x yes {self.root}/linger || echo no)" ;;
esac
""")
        write_program(self.bin / "systemctl", f"""#!/bin/sh
echo "systemctl $*" >>{self.root}/calls
[ "$1" = --user ] || exit 1
case "$2" in
  restart)
    if [ -f {self.root}/main ]; then
      kill "$(cat {self.root}/main)"
      while kill -0 "$(cat {self.root}/main)" 2>/dev/null; do sleep 0.05; done
    fi
    command=$(sed -n 's/^ExecStart="\\(.*\\)"$/\\1/p' {self.home}/.config/systemd/user/"$3")
    setsid "$command" </dev/null >>{self.root}/journal 2>&1 &
    echo $! >{self.root}/main ;;
  show) echo "MainPID=$(cat {self.root}/main 2>/dev/null || echo 0)" ;;
esac
exit 0
""")

    def calls(self):
        """What was asked of it, in order."""
        return (self.root / "calls").read_text()

    # What `boxes install` makes there.

    @property
    def program(self):
        return self.home / ".local/share/sandbox/bin/sandbox-agent"

    @property
    def state(self):
        return self.home / ".local/state/sandbox-agent"

    def agent(self):
        return json.loads((self.state / "agent.json").read_text())

    def agent_pid(self):
        return self.agent()["PID"]


class Laptop:
    """A person's machine: the CLI, a key, and an ssh that reads a private ssh_config. The real ssh
    takes the home from the password database, so the configuration is named by a small program of
    that name, first on PATH."""

    def __init__(self, root, bin_dir, name="laptop", user="alice"):
        self.root = root / name
        self.bin = self.root / "bin"
        self.project = self.root / "p"
        for directory in (self.root, self.bin, self.project):
            directory.mkdir(mode=0o700)
        self.program = pathlib.Path(bin_dir) / "sandbox"
        self.key = self.root / "id"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.key], check=True,
                       stdin=subprocess.DEVNULL)
        self.public_key = (self.root / "id.pub").read_text().strip()
        self.config = self.root / "ssh_config"
        self.known = self.root / "known_hosts"
        self.hosts = {}
        self.write_config()
        write_program(self.bin / "ssh",
                      f"#!/bin/sh\nexec {shutil.which('ssh')} -F {self.config} \"$@\"\n")
        self.env = {
            "HOME": str(self.root),
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "USER": user,
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def knows(self, sshd, jump=None, trusted=True):
        """Host `sshd.name` in ssh_config, by way of the host `jump` if there is one."""
        self.hosts[sshd.name] = (sshd, jump, trusted)
        self.write_config()

    def write_config(self):
        text = ""
        known = ""
        for name, (sshd, jump, trusted) in self.hosts.items():
            text += f"Host {name}\n  HostName 127.0.0.1\n  Port {sshd.port}\n"
            if jump:
                text += f"  ProxyJump {jump}\n"
            if trusted:
                known += f"[127.0.0.1]:{sshd.port} {sshd.host_key}\n"
        text += (f"Host *\n  User {getpass.getuser()}\n  IdentityFile {self.key}\n"
                 "  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
                 f"  UserKnownHostsFile {self.known}\n  GlobalKnownHostsFile none\n")
        self.config.write_text(text)
        self.known.write_text(known)

    @property
    def boxes_file(self):
        return self.root / ".config/sandbox/boxes.json"

    def boxes(self):
        if not self.boxes_file.exists():
            return {}
        return json.loads(self.boxes_file.read_text())["boxes"]

    def start(self, *words, **options):
        options.setdefault("cwd", self.project)
        options.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.Popen([str(w) for w in (self.program, *words)], env=self.env, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)

    def run(self, *words, status=0):
        with self.start(*words) as process:
            try:
                out, err = process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                out, err = process.communicate()
                raise AssertionError(f"{words} did not end: {out} {err}") from None
        if status is not None and process.returncode != status:
            raise AssertionError(f"{words} ended with {process.returncode}: {out} {err}")
        process.out, process.err = out, err
        return process

    def make_project(self):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
        (self.project / "f").write_text("hello\n")
        for words in (["init", "-q", "-b", "main"], ["add", "f"], ["commit", "-q", "-m", "first"]):
            subprocess.run(git + words, cwd=self.project, check=True, env=self.env,
                           stdin=subprocess.DEVNULL)


class MachinesTest(unittest.TestCase):
    """A laptop, and machines as a test asks for them. `bin`: where the programs are."""

    bin = None

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
        self.machines = []
        self.laptop = Laptop(self.root, self.bin)
        self.addCleanup(self.end)

    def end(self):
        for machine in self.machines:
            machine.end()
        end_all_below(self.root)
        failed = any(error for _, error in getattr(self._outcome, "errors", [])) or any(
            test is self for test, _ in (self._outcome.result.failures + self._outcome.result.errors))
        if failed:
            print(f"left behind: {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)

    def machine(self, name="rig", jump=None, trusted=True, **options):
        sshd = Sshd(self.root, name, self.laptop.public_key, **options)
        self.machines.append(sshd)
        self.laptop.knows(sshd, jump, trusted)
        return sshd


def supervisors_below(root):
    """The pids of supervisors that run. In isolation their command lines name no path out here."""
    found = []
    for file in root.glob("**/sandboxes/*/supervisor.json"):
        try:
            record = json.loads(file.read_text())
            stat = (pathlib.Path("/proc") / str(record["pid"]) / "stat").read_text()
        except (OSError, ValueError):
            continue
        if stat.rsplit(")", 1)[1].split()[19] == str(record["start_time"]):
            found.append(record["pid"])
    return found


def end_all_below(root):
    """Ends what runs below a test's directory: agents and supervisors outlive who started them."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        end = time.monotonic() + 30
        while time.monotonic() < end:
            ours = supervisors_below(root)
            for entry in pathlib.Path("/proc").iterdir():
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    try:
                        words = (entry / "cmdline").read_bytes()
                    except OSError:
                        continue
                    if str(root).encode() + b"/" in words:
                        ours.append(int(entry.name))
            if not ours:
                return
            for pid in ours:
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    pass
            time.sleep(0.05)
