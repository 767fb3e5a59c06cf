"""`sandbox boxes install` through the user's own ssh, on machines that have nothing but a real sshd.

Usage: install_test.py BIN_DIR [unittest arguments]
"""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from sshd import SSHD, Laptop, MachinesTest, free_port, wait_for, write_program  # noqa: E402

BIN = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None


class Install(MachinesTest):
    bin = BIN

    def install(self, *words, status=0):
        return self.laptop.run("boxes", "install", *words, status=status)

    def assert_untouched(self, machine, done, *texts):
        """Nothing is on the machine, no box was added, and the error says so."""
        for text in texts:
            self.assertIn(text, done.err)
        self.assertEqual(done.out, "")
        self.assertEqual(machine.files(), [])
        self.assertEqual(self.laptop.boxes(), {})

    def test_a_machine_with_nothing_but_sshd_becomes_a_box(self):
        rig = self.machine()
        port = free_port()
        done = self.install("rig", "--listen", f"127.0.0.1:{port}", "--slots", "2")
        self.assertIn(f"Added box rig: 127.0.0.1:{port}", done.out)
        self.assertIn(rig.agent()["HostKey"], done.out)
        self.assertEqual(self.laptop.boxes()["rig"]["hostKey"], rig.agent()["HostKey"])
        self.assertEqual(rig.program.stat().st_mode & 0o777, 0o700)
        self.assertIn("--slots 2", (rig.state / "serve").read_text())

        self.laptop.make_project()
        ran = self.laptop.run("exec", "--box", "rig", "--", "sh", "-c", "cat f; echo made >g")
        self.assertEqual(ran.out, "hello\n")
        self.assertEqual((self.laptop.project / "g").read_text(), "made\n")

    def test_a_second_install_replaces_nothing(self):
        rig = self.machine()
        listen = f"127.0.0.1:{free_port()}"
        self.install("rig", "--listen", listen)
        before = (rig.agent_pid(), rig.program.stat().st_ino, rig.files(),
                  self.laptop.boxes_file.read_text())
        done = self.install("rig")
        self.assertIn("nothing was replaced", done.out)
        self.assertIn(f"Known already: box rig: {listen}", done.out)
        self.assertEqual(before, (rig.agent_pid(), rig.program.stat().st_ino, rig.files(),
                                  self.laptop.boxes_file.read_text()))

    def test_an_agent_that_died_is_started_by_the_next_install_with_its_options(self):
        rig = self.machine()
        listen = f"127.0.0.1:{free_port()}"
        self.install("rig", "--listen", listen, "--slots", "3")
        first = rig.agent()
        os.kill(first["PID"], signal.SIGKILL)
        done = self.install("rig")
        self.assertIn("Started it", done.out)
        self.assertNotEqual(rig.agent_pid(), first["PID"])
        self.assertEqual(rig.agent()["HostKey"], first["HostKey"])
        self.assertEqual(rig.agent()["Address"], listen)
        self.assertIn("--slots 3", (rig.state / "serve").read_text())

    def test_other_options_for_an_agent_that_runs_are_refused(self):
        rig = self.machine()
        listen = f"127.0.0.1:{free_port()}"
        self.install("rig", "--listen", listen)
        before = (rig.agent_pid(), (rig.state / "serve").read_text())
        done = self.install("rig", "--slots", "9", status=255)
        self.assertIn("--slots 1", done.err)
        self.assertIn(f"kill {before[0]}", done.err)
        self.assertEqual(before, (rig.agent_pid(), (rig.state / "serve").read_text()))

    def test_it_gets_there_by_way_of_a_jump_host(self):
        jump = self.machine("jump")
        rig = self.machine("rig", jump="jump")
        self.install("rig", "--listen", f"127.0.0.1:{free_port()}")
        self.assertGreater(jump.logins(), 0)
        self.assertTrue(rig.program.exists())
        self.assertEqual(jump.files(), [])
        jump.end()
        done = self.install("rig", status=255)
        self.assertIn("ssh did not get to rig", done.err)

    def test_another_persons_key_is_let_in_too(self):
        rig = self.machine()
        listen = f"127.0.0.1:{free_port()}"
        self.install("rig", "--listen", listen)
        bob = Laptop(self.root, BIN, "bobs", "bob")
        with open(rig.root / "authorized", "a", encoding="utf-8") as keys:
            keys.write(bob.public_key + "\n")
        bob.knows(rig)
        done = bob.run("boxes", "install", "shared", "--host", "rig", "--listen", listen)
        self.assertIn("nothing was replaced", done.out)
        self.assertIn("Your key is let in as bob", done.out)
        keys = (rig.state / "authorized_keys").read_text()
        self.assertIn("alice", keys)
        self.assertIn("bob", keys)
        bob.make_project()
        self.assertEqual(bob.run("exec", "--box", "shared", "--", "cat", "f").out, "hello\n")

    def test_missing_libraries_are_named_with_their_packages_and_nothing_is_changed(self):
        rig = self.machine()
        programs = self.root / "programs"
        programs.mkdir()
        shutil.copy(BIN / "sandbox", programs)
        agent = (BIN / "sandbox-agent").read_bytes()
        for library in (b"libssh.so.4\0", b"libsqlite3.so.0\0"):
            self.assertIn(library, agent)
            agent = agent.replace(library, library[:-2] + b"9\0")
        (programs / "sandbox-agent").write_bytes(agent)
        (programs / "sandbox-agent").chmod(0o755)
        self.laptop.program = programs / "sandbox"
        done = self.install("rig", status=255)
        self.assert_untouched(rig, done, "libssh.so.9", "libsqlite3.so.9", "libsqlite3-9",
                              "Nothing was changed")

    def test_a_machine_without_git_is_told_so_and_nothing_is_changed(self):
        tools = self.root / "tools"
        tools.mkdir()
        for directory in ("/bin", "/usr/bin"):
            for file in pathlib.Path(directory).iterdir():
                if not file.name.startswith("git") and not (tools / file.name).exists():
                    (tools / file.name).symlink_to(file)
        rig = self.machine(path=str(tools))
        done = self.install("rig", status=255)
        self.assert_untouched(rig, done, "it lacks git", "apt-get install git")

    def test_another_architecture_is_named_and_nothing_is_changed(self):
        rig = self.machine()
        write_program(rig.bin / "uname",
                      '#!/bin/sh\ncase $1 in -m) echo sparc64 ;; *) exec /bin/uname "$@" ;; esac\n')
        done = self.install("rig", status=255)
        self.assert_untouched(rig, done, "rig is sparc64", "Nothing was changed")

    def test_a_login_that_would_ask_is_an_error(self):
        rig = self.machine(trusted=False)
        done = self.install("rig", status=255)
        self.assert_untouched(rig, done, "ssh did not get to rig", "BatchMode=yes rig true")

    def test_a_profile_that_talks_does_no_harm(self):
        self.machine(login="echo Welcome; printf '%s' 'and no end of line'")
        self.install("rig", "--listen", f"127.0.0.1:{free_port()}")
        self.assertIn("rig", self.laptop.boxes())

    def test_without_listen_it_is_reached_through_its_sshd(self):
        rig = self.machine()
        done = self.install("rig")
        self.assertIn("Added box rig: ssh rig", done.out)
        self.assertEqual(self.laptop.boxes()["rig"]["viaSsh"], "rig")
        self.assertTrue(rig.agent()["Address"].startswith("127.0.0.1:"), rig.agent())
        self.laptop.make_project()
        ran = self.laptop.run("exec", "--box", "rig", "--", "sh", "-c", "cat f; echo made >g")
        self.assertEqual(ran.out, "hello\n")
        self.assertEqual((self.laptop.project / "g").read_text(), "made\n")
        before = (rig.agent_pid(), self.laptop.boxes_file.read_text())
        self.assertIn("Known already: box rig: ssh rig", self.install("rig").out)
        self.assertEqual(before, (rig.agent_pid(), self.laptop.boxes_file.read_text()))

    def test_a_home_with_a_space_and_a_quote_in_it_will_do(self):
        rig = self.machine(home="my 'own' home")
        self.install("rig")
        self.laptop.make_project()
        self.assertEqual(self.laptop.run("exec", "--box", "rig", "--", "cat", "f").out, "hello\n")
        first = rig.agent_pid()
        os.kill(first, signal.SIGKILL)
        self.install("rig")
        self.assertNotEqual(rig.agent_pid(), first)

    def test_an_agent_that_was_started_by_hand_becomes_a_box_and_is_left_alone(self):
        rig = self.machine()
        with subprocess.Popen([BIN / "sandbox-agent", "serve", "--state", rig.state, "--name", "rig",
                               "--listen", "127.0.0.1:0"], stdin=subprocess.DEVNULL, cwd="/",
                              env={"HOME": str(rig.home), "PATH": os.environ["PATH"]},
                              stderr=subprocess.DEVNULL) as agent:
            try:
                wait_for((rig.state / "agent.json").exists, "it listens")
                self.assertIn("Added box rig: ssh rig", self.install("rig").out)
                self.laptop.make_project()
                ran = self.laptop.run("exec", "--box", "rig", "--", "cat", "f")
                self.assertEqual(ran.out, "hello\n")
                done = self.laptop.run("update", "--box", "rig", status=255)
                self.assertIn("was started by hand, not by install", done.err)
                self.assertEqual(rig.agent_pid(), agent.pid)
            finally:
                agent.terminate()

    def test_a_disk_that_is_full_is_named_and_nothing_is_left(self):
        rig = self.machine()
        write_program(rig.bin / "dd",
                      "#!/bin/sh\ncase $1 in of=*) head -c 99999 >\"${1#of=}\"\n"
                      "echo 'dd: error writing: No space left on device' >&2; exit 1 ;; esac\n"
                      'exec /bin/dd "$@"\n')
        done = self.install("rig", status=255)
        self.assert_untouched(rig, done, "did not arrive whole on rig", "No space left on device",
                              "Nothing was changed")

    def test_a_home_that_cannot_be_written_is_named_and_nothing_is_left(self):
        rig = self.machine()
        (rig.home / ".local").write_text("a file where there should be a directory")
        before = rig.files()
        done = self.install("rig", status=255)
        self.assertIn("cannot write the agent's program on rig: mkdir:", done.err)
        self.assertIn(str(rig.program), done.err)
        self.assertEqual(rig.files(), before)
        self.assertEqual(self.laptop.boxes(), {})

    def test_an_agent_that_cannot_start_leaves_no_box_and_says_what_is_left(self):
        rig = self.machine()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = self.install("rig", "--listen", f"127.0.0.1:{port}", status=255)
        self.assertIn("does not start on rig", done.err)
        self.assertIn("cannot listen", done.err)
        self.assertIn(f"Left on rig: {rig.program}", done.err)
        self.assertEqual(self.laptop.boxes(), {})
        # ... and goes on from there.
        self.install("rig", "--listen", f"127.0.0.1:{port}")
        self.assertIn("rig", self.laptop.boxes())

    def test_a_client_that_dies_while_it_copies_leaves_nothing(self):
        rig = self.machine()
        # The remote end stops before it reads, so that the copy is cut in its middle.
        write_program(rig.bin / "dd",
                      f'#!/bin/sh\ncase $1 in of=*) touch {rig.root}/copying\n'
                      f'while [ ! -e {rig.root}/go ]; do sleep 0.05; done ;; esac\n'
                      'exec /bin/dd "$@"\n')
        process = self.laptop.start("boxes", "install", "rig", start_new_session=True)
        wait_for((rig.root / "copying").exists, "the copy begins")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        (rig.root / "go").touch()
        wait_for(lambda: rig.files() == [], "the staged copy is removed")
        self.assertEqual(self.laptop.boxes(), {})

    def test_a_name_that_is_another_box_is_left_alone(self):
        rig = self.machine("rig")
        other = self.machine("other")
        self.install("rig", "--listen", f"127.0.0.1:{free_port()}")
        before = self.laptop.boxes_file.read_text()
        done = self.install("rig", "--host", "other", status=2)
        self.assertIn("there is a box rig already", done.err)
        self.assertEqual(other.files(), [])
        self.assertEqual(before, self.laptop.boxes_file.read_text())

    def test_it_is_a_service_where_the_service_manager_keeps_one(self):
        rig = self.machine()
        rig.fake_systemd("allowed")
        done = self.install("rig", "--listen", f"127.0.0.1:{free_port()}")
        self.assertIn("as a service", done.out)
        unit = (rig.home / ".config/systemd/user/sandbox-agent.service").read_text()
        self.assertIn("KillMode=process", unit)
        calls = rig.calls()
        self.assertLess(calls.index("daemon-reload"), calls.index("enable sandbox-agent.service"))
        self.assertLess(calls.index("enable sandbox-agent.service"),
                        calls.index("restart sandbox-agent.service"))
        self.assertEqual(int((rig.root / "main").read_text()), rig.agent_pid())
        again = self.install("rig")
        self.assertIn("It runs as a service", again.out)
        self.assertEqual(rig.calls().count("restart"), 1)

    def test_a_service_that_would_end_with_the_login_is_a_daemon_instead(self):
        rig = self.machine()
        rig.fake_systemd("no")
        done = self.install("rig", "--listen", f"127.0.0.1:{free_port()}")
        self.assertIn("as a daemon", done.out)
        self.assertIn("loginctl enable-linger", done.err)
        self.assertNotIn("restart", rig.calls())
        self.assertNotEqual(rig.agent_pid(), 0)

    def test_json_says_what_was_done(self):
        rig = self.machine()
        listen = f"127.0.0.1:{free_port()}"
        first = json.loads(self.install("rig", "--json", "--listen", listen).out)
        self.assertEqual((first["Name"], first["Address"], first["Installed"], first["Added"]),
                         ("rig", listen, True, True))
        self.assertEqual(first["Program"], str(rig.program))
        second = json.loads(self.install("rig", "--json").out)
        self.assertEqual((second["Installed"], second["Started"], second["Added"]),
                         (False, False, False))


if __name__ == "__main__":
    if SSHD is None:
        print("there is no sshd on this machine: scripts/setup --tests installs it", file=sys.stderr)
        sys.exit(1)
    unittest.main(verbosity=2)
