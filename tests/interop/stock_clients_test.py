"""Other people's clients against a real agent: stock ssh, git push over ssh, and paramiko.

Usage: stock_clients_test.py BIN_DIR [unittest arguments]
BIN_DIR holds `sandbox` and `sandbox-agent`. Everything happens in a private directory and on
loopback; the directory stays behind, and is named, when a test fails.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

import paramiko

BIN = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None
LIMIT = 60  # seconds that any one step may take


class Box:
    """One agent with one sandbox, made through our own CLI, and the ways in."""

    def __init__(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
        self.home = self.root / "home"
        self.state = self.root / "agent"
        self.project = self.root / "project"
        for directory in (self.home, self.project):
            directory.mkdir(mode=0o700)
        self.env = {
            "HOME": str(self.home),
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_RUNTIME_DIR": str(self.home),
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }
        public = self.run(BIN / "sandbox", "key").stdout.strip()
        self.key = self.home / "config/sandbox/id_ed25519"
        self.run(BIN / "sandbox-agent", "authorize", "--state", self.state, public, "--user", "alice")
        self.log = open(self.root / "agent.log", "wb")
        self.agent = subprocess.Popen(
            [BIN / "sandbox-agent", "serve", "--listen", "127.0.0.1:0", "--state", self.state,
             "--name", "rig", "--slots", "0"],
            env=self.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        self.wait_for(lambda: (self.state / "agent.json").exists(), "the agent listens")
        self.address = json.loads((self.state / "agent.json").read_text())["Address"]
        self.port = int(self.address.rsplit(":", 1)[1])

        git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
        self.run("git", "init", "-q", "-b", "main", cwd=self.project)
        (self.project / "hello.txt").write_text("hello\n")
        self.run("git", "add", "hello.txt", cwd=self.project)
        self.run(*git, "commit", "-q", "-m", "first", cwd=self.project)
        answer = self.run(BIN / "sandbox", "exec", "--json", "--box", self.address, "--", "true",
                          cwd=self.project).stdout
        self.sandbox = json.loads(answer.splitlines()[-1])["RunID"]
        self.ssh_config = self.root / "ssh_config"
        self.ssh_config.write_text(
            self.run(BIN / "sandbox", "ssh-config", "--box", self.address, cwd=self.project).stdout)
        self.host = next(line.split()[1] for line in self.ssh_config.read_text().splitlines()
                         if line.split()[:1] == ["Host"])

    def run(self, *argv, check=True, **options):
        done = subprocess.run([str(a) for a in argv], env=self.env, timeout=LIMIT,
                              stdin=options.pop("stdin", subprocess.DEVNULL if "input" not in options else None),
                              capture_output=True, text=options.pop("text", True), **options)
        if check and done.returncode != 0:
            raise AssertionError(f"{argv} ended with {done.returncode}: {done.stdout} {done.stderr}")
        return done

    def ssh(self, *command, options=(), **more):
        return self.run("ssh", "-F", self.ssh_config, *options, self.host, *command, **more)

    def wait_for(self, condition, what):
        end = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > end or self.agent.poll() is not None:
                raise AssertionError(f"not seen: {what}; see {self.root}")
            time.sleep(0.02)

    def connect(self):
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        client.connect("127.0.0.1", self.port, username=self.sandbox, key_filename=str(self.key),
                       look_for_keys=False, allow_agent=False, timeout=LIMIT)
        return client

    def end(self, keep):
        self.agent.terminate()
        self.agent.wait(LIMIT)
        self.log.close()
        if keep:
            print(f"left behind: {self.root}", file=sys.stderr)
        else:
            shutil.rmtree(self.root, ignore_errors=True)


def directive(client, name):
    channel = client.get_transport().open_session(timeout=LIMIT)
    channel.settimeout(LIMIT)
    channel.exec_command(f"__rwx_sandbox_{name}__")
    return channel


def status(channel):
    """The exit status once the channel has ended, with what it printed."""
    out = b"".join(iter(lambda: channel.recv(65536), b""))
    error = b"".join(iter(lambda: channel.recv_stderr(65536), b""))
    return channel.recv_exit_status(), out, error


class StockClients(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.box = Box()
        cls.failed = False

    @classmethod
    def tearDownClass(cls):
        cls.box.end(keep=cls.failed)

    def run(self, result=None):
        result = super().run(result)
        if result and (result.failures or result.errors):
            type(self).failed = True
        return result

    def test_ssh_keeps_stdout_and_stderr_apart_and_passes_the_status(self):
        done = self.box.ssh("echo out; echo err >&2; exit 7", check=False)
        self.assertEqual((done.stdout, done.stderr, done.returncode), ("out\n", "err\n", 7))

    def test_ssh_runs_in_the_workspace(self):
        self.assertEqual(self.box.ssh("cat hello.txt").stdout, "hello\n")

    def test_ssh_learns_of_a_death_by_signal(self):
        done = self.box.ssh("kill -KILL $$", check=False)
        self.assertEqual(done.returncode, 255)  # what OpenSSH makes of an exit-signal

    def test_ssh_carries_stdin_and_output_of_many_megabytes_unchanged(self):
        data = os.urandom(12 * 1024 * 1024)
        done = self.box.ssh("cat", input=data, text=False, stdin=None)
        self.assertTrue(done.stdout == data)

    def test_ssh_returns_when_the_command_ends_though_a_grandchild_keeps_its_output_open(self):
        started = time.monotonic()
        done = self.box.ssh("sleep 50 & echo done")
        self.assertEqual(done.stdout, "done\n")
        self.assertLess(time.monotonic() - started, 30)

    def test_ssh_gets_a_terminal_when_it_asks_for_one(self):
        done = self.box.ssh("tty && stty size", options=("-tt",))
        self.assertIn("/dev/pts/", done.stdout)

    def test_ssh_with_a_wrong_key_is_not_let_in(self):
        other = self.box.root / "other_key"
        if not other.exists():
            self.box.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other)
        done = self.box.run("ssh", "-F", "/dev/null", "-i", other, "-o", "IdentitiesOnly=yes",
                            "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
                            "-o", f"UserKnownHostsFile={self.box.root}/known", "-p", str(self.box.port),
                            f"{self.box.sandbox}@127.0.0.1", "true", check=False)
        self.assertEqual(done.returncode, 255)
        self.assertIn("Permission denied", done.stderr)

    def test_ssh_forwards_a_port_on_the_sandboxs_loopback(self):
        # The echo server ends by itself after one connection.
        server = ("python3 -c \"import socket,sys; s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(1);"
                  "print(s.getsockname()[1], flush=True); s.settimeout(50); c,_=s.accept();"
                  "c.sendall(c.recv(100)[::-1]); c.close()\"")
        client = self.box.connect()
        try:
            channel = client.get_transport().open_session(timeout=LIMIT)
            channel.settimeout(LIMIT)
            channel.exec_command(server)
            port = int(channel.makefile().readline())
            forward = client.get_transport().open_channel(
                "direct-tcpip", ("127.0.0.1", port), ("127.0.0.1", 1), timeout=LIMIT)
            forward.settimeout(LIMIT)
            forward.sendall(b"abc")
            self.assertEqual(forward.recv(10), b"cba")
            with self.assertRaises(paramiko.ChannelException):
                client.get_transport().open_channel(
                    "direct-tcpip", ("127.0.0.1", 1), ("127.0.0.1", 1), timeout=LIMIT)
        finally:
            client.close()

    def test_git_push_reaches_the_workspaces_repository(self):
        env = dict(self.box.env, GIT_SSH_COMMAND=f"ssh -F {self.box.ssh_config}")
        head = self.box.run("git", "rev-parse", "HEAD", cwd=self.box.project).stdout.strip()
        done = subprocess.run(
            ["git", "push", "-q", f"{self.box.host}:.", f"+{head}:refs/rwx/sync-push"],
            cwd=self.box.project, env=env, capture_output=True, text=True, timeout=LIMIT,
            stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.box.ssh("git rev-parse refs/rwx/sync-push").stdout.strip(), head)

    def test_many_channels_on_one_connection(self):
        client = self.box.connect()
        try:
            channels = [client.get_transport().open_session(timeout=LIMIT) for _ in range(20)]
            for i, channel in enumerate(channels):
                channel.settimeout(LIMIT)
                channel.exec_command(f"echo {i}; exit {i}")
            for i, channel in enumerate(channels):
                self.assertEqual(status(channel), (i, f"{i}\n".encode(), b""))
        finally:
            client.close()

    def test_an_unknown_directive_is_answered_127(self):
        client = self.box.connect()
        try:
            code, out, _ = status(directive(client, "no_such_thing"))
            self.assertEqual((code, out), (127, b""))
        finally:
            client.close()

    def test_lock_run_release(self):
        client = self.box.connect()
        try:
            for name in ("lock_requested", "sync_start", "sync_end"):
                self.assertEqual(status(directive(client, name))[:2], (0, b""))
            channel = client.get_transport().open_session(timeout=LIMIT)
            channel.exec_command("echo ran")
            self.assertEqual(status(channel)[:2], (0, b"ran\n"))
            self.assertEqual(status(directive(client, "lock_released"))[:2], (0, b""))
        finally:
            client.close()

    def contend(self, end_first):
        """The second of two waits, and holds only after end_first(first) has run."""
        first, second = self.box.connect(), self.box.connect()
        try:
            self.assertEqual(status(directive(first, "lock_requested"))[0], 0)
            waiting = directive(second, "lock_requested")
            news = waiting.recv_stderr(4096)  # queue news: the agent has put it in line
            self.assertTrue(news)
            self.assertFalse(waiting.exit_status_ready())
            # Anything else on the second connection is answered at once, so the first still holds.
            self.assertEqual(status(directive(second, "lock_released"))[0], 0)
            self.assertFalse(waiting.exit_status_ready())
            end_first(first)
            self.assertEqual(status(waiting)[0], 0)
            self.assertEqual(status(directive(second, "lock_released"))[0], 0)
        finally:
            first.close()
            second.close()

    def test_the_second_starts_after_the_first_released(self):
        self.contend(lambda first: self.assertEqual(status(directive(first, "lock_released"))[0], 0))

    def test_the_second_starts_after_the_first_vanished(self):
        self.contend(lambda first: first.close())

    def test_a_waiter_that_leaves_is_not_in_the_way(self):
        first, second, third = self.box.connect(), self.box.connect(), self.box.connect()
        try:
            self.assertEqual(status(directive(first, "lock_requested"))[0], 0)
            leaver = directive(second, "lock_requested")
            self.assertTrue(leaver.recv_stderr(4096))
            second.close()
            waiting = directive(third, "lock_requested")
            self.assertTrue(waiting.recv_stderr(4096))
            self.assertEqual(status(directive(first, "lock_released"))[0], 0)
            self.assertEqual(status(waiting)[0], 0)
        finally:
            for client in (first, second, third):
                client.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
