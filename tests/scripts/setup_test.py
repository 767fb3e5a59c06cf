#!/usr/bin/env python3
"""scripts/setup on made-up machines: apt-get, dpkg-query, id and sudo are fakes that keep a log."""

import os
import shutil
import subprocess
import tempfile
import unittest

SETUP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/setup")

# Each fake appends its command line to $LOG. What is installed is a list, one name per line.
FAKES = {
    "dpkg-query": """
for name; do
  if grep -qxF -- "$name" "$MACHINE/installed"; then echo "$name installed"; fi
done
exit 1  # as it does when it does not know one of them
""",
    "apt-get": """
[[ -z "$(cat)" ]] || echo "read stdin" >>"$LOG"
echo "apt-get talks on stdout"
case " $* " in
  *" update "*)
    if [[ -s $MACHINE/lists-locked ]]; then sed -i 1d "$MACHINE/lists-locked"; exit 100; fi ;;
  *" install "*)
    [[ ! -e $MACHINE/install-fails ]] || exit 100
    [[ $DEBIAN_FRONTEND == noninteractive ]] || exit 99
    for name; do echo "$name" >>"$MACHINE/installed"; done
    touch "$MACHINE/status" ;;
esac
""",
    "systemctl": "",
    "id": 'cat "$MACHINE/uid"\n',
    "sudo": """
[[ $1 == -n && -e $MACHINE/sudo-works ]] || exit 1
shift
exec "$@"
""",
}


class Machine:
    """A machine with nothing installed, on which the caller is root."""

    def __init__(self, folder, os_release):
        self.folder = folder
        os.makedirs(self.path("bin"))
        os.makedirs(self.path("scripts"))
        shutil.copy(SETUP, self.path("scripts/setup"))
        for name, body in FAKES.items():
            self.write(f"bin/{name}", f'#!/bin/bash\necho "{name} $*" >>"$LOG"\n{body}')
            os.chmod(self.path(f"bin/{name}"), 0o755)
        self.write("os-release", os_release)
        self.write("uid", "0\n")
        self.write("installed", "")
        self.write("status", "")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return file.read()

    def setup(self, *arguments):
        """Runs it; returns the result and the commands that it ran."""
        self.write("log", "")
        run = subprocess.run(
            [self.path("scripts/setup"), *arguments],
            input="not for apt",
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": self.path("bin") + ":/usr/bin:/bin",
                "MACHINE": self.folder,
                "LOG": self.path("log"),
                "SETUP_OS_RELEASE": self.path("os-release"),
                "SETUP_DPKG_STATUS": self.path("status"),
                "SETUP_RETRY_SECONDS": "0",
                "SETUP_SYSTEMD": self.path("systemd"),
            },
        )
        return run, self.read("log").splitlines()


DEBIAN_12 = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n'
DEBIAN_13 = 'VERSION_ID="13"\nID=debian\n'
UBUNTU_24 = 'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


class Setup(unittest.TestCase):
    def machine(self, os_release=DEBIAN_12):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return Machine(folder.name, os_release)

    def test_installs_what_is_missing_and_says_nothing_on_stdout(self):
        machine = self.machine()
        run, commands = machine.setup()
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        self.assertIn("apt-get talks on stdout", run.stderr)
        installed = machine.read("installed").split()
        self.assertIn("libboost1.81-dev", installed)
        self.assertNotIn("catch2", installed)
        updates = [command for command in commands if command.startswith("apt-get update")]
        installs = [command for command in commands if " install " in command]
        self.assertEqual((len(updates), len(installs)), (1, 1), commands)
        self.assertIn("DPkg::Lock::Timeout=", installs[0])
        self.assertIn("--no-remove", installs[0])
        self.assertNotIn("read stdin", commands)

    def test_only_what_is_missing_is_installed(self):
        machine = self.machine()
        machine.write("installed", "g++\ncmake\n")
        _, commands = machine.setup()
        install = next(command for command in commands if " install " in command).split()
        self.assertNotIn("g++", install)
        self.assertIn("ninja-build", install)

    def test_tests_are_asked_for(self):
        machine = self.machine()
        machine.setup()
        run, commands = machine.setup("--tests")
        self.assertEqual(run.returncode, 0, run.stderr)
        install = next(command for command in commands if " install " in command).split()
        self.assertIn("catch2", install)
        self.assertNotIn("cmake", install)

    def test_a_second_call_runs_nothing(self):
        for arguments in [], ["--tests"]:
            machine = self.machine()
            machine.setup(*arguments)
            run, commands = machine.setup(*arguments)
            self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "", ""))
            self.assertEqual(commands, [])

    def test_nothing_is_updated_when_nothing_is_missing(self):
        machine = self.machine()
        machine.setup()
        shutil.rmtree(machine.path("build"))
        run, commands = machine.setup()
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        self.assertEqual([command.split()[0] for command in commands], ["dpkg-query"])

    def test_a_package_removed_since_is_noticed(self):
        machine = self.machine()
        machine.setup()
        machine.write("installed", machine.read("installed").replace("cmake\n", ""))
        machine.write("status", "changed")
        _, commands = machine.setup()
        self.assertTrue(any(command.endswith(" cmake") for command in commands), commands)

    def test_each_system_has_its_names(self):
        for os_release, has, has_not in [
            (DEBIAN_12, "libboost-json1.81-dev", "libboost-json-dev"),
            (DEBIAN_13, "libboost-json-dev", "libboost-json1.81-dev"),
            (UBUNTU_24, "clang-tidy-14", "clang-tidy"),
        ]:
            machine = self.machine(os_release)
            run, _ = machine.setup("--tests")
            self.assertEqual(run.returncode, 0, run.stderr)
            installed = machine.read("installed").split()
            self.assertIn(has, installed)
            self.assertNotIn(has_not, installed)

    def test_the_tests_sshd_does_not_make_this_machine_serve_ssh(self):
        machine = self.machine()
        os.mkdir(machine.path("systemd"))
        for failing in (True, False):
            machine.write("install-fails", "")
            if not failing:
                os.remove(machine.path("install-fails"))
            run, commands = machine.setup("--tests")
            self.assertEqual(run.returncode, 1 if failing else 0, run.stderr)
            steps = [c.split()[1] for c in commands if c.startswith(("systemctl ", "apt-get -o"))]
            self.assertEqual(steps, ["mask", "-o", "unmask", "disable"])

    def test_an_sshd_that_is_there_is_left_alone(self):
        machine = self.machine()
        os.mkdir(machine.path("systemd"))
        machine.write("installed", "openssh-server\n")
        _, commands = machine.setup("--tests")
        self.assertFalse(any(c.startswith("systemctl") for c in commands), commands)

    def test_any_other_system_gets_the_list(self):
        for os_release in ['ID=fedora\nVERSION_ID="40"\n', 'ID=debian\nVERSION_ID="11"\n', ""]:
            run, commands = self.machine(os_release).setup()
            self.assertEqual((run.returncode, run.stdout, commands), (1, "", []))
            for needed in "Boost >= 1.81", "libssh >= 0.10", "yaml-cpp", "Catch2":
                self.assertIn(needed, run.stderr)

    def test_without_root_sudo_is_used(self):
        machine = self.machine()
        machine.write("uid", "1000\n")
        machine.write("sudo-works", "")
        run, commands = machine.setup()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue(any(command.startswith("sudo -n env") for command in commands), commands)

    def test_root_does_without_sudo(self):
        machine = self.machine()
        os.remove(machine.path("bin/sudo"))
        run, commands = machine.setup()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertFalse(any(command.startswith("sudo") for command in commands), commands)

    def test_without_root_or_sudo_the_line_to_paste_is_printed(self):
        machine = self.machine()
        machine.write("uid", "1000\n")
        machine.write("installed", "g++\n")
        run, commands = machine.setup()
        self.assertEqual((run.returncode, run.stdout), (1, ""))
        self.assertRegex(run.stderr, r"\n  sudo apt-get update && sudo apt-get install -y .*ninja-build")
        self.assertNotIn("g++", run.stderr)
        self.assertFalse(any(command.startswith("apt-get") for command in commands), commands)

    def test_locked_lists_are_waited_for(self):
        machine = self.machine()
        machine.write("lists-locked", "once\ntwice\n")
        run, commands = machine.setup()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(sum(command.startswith("apt-get update") for command in commands), 3)

    def test_a_failure_names_what_is_missing_and_is_not_remembered(self):
        machine = self.machine()
        machine.write("install-fails", "")
        for _ in range(2):
            run, _ = machine.setup()
            self.assertEqual((run.returncode, run.stdout), (1, ""))
            self.assertRegex(run.stderr, "did not install .*cmake")
        self.assertEqual(os.listdir(machine.path("build")), [])

    def test_misuse_is_2(self):
        run, commands = self.machine().setup("--all")
        self.assertEqual((run.returncode, run.stdout, commands), (2, "", []))


if __name__ == "__main__":
    unittest.main()
