"""The first session in README.md is real: its commands are run and print what stands there.

Usage: readme_test.py BIN_DIR [unittest arguments]
BIN_DIR holds `sandbox` and `sandbox-agent`. Everything happens in a private directory, with a local
agent of its own; the directory stays behind, and is named, when the test fails.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None
README = pathlib.Path(__file__).resolve().parents[2] / "README.md"
LIMIT = 120  # seconds that any one step may take

PROGRAM = '#include <stdio.h>\nint main(void) { puts("hello"); }\n'


def first_session():
    """The commands of the first console block, each with the lines that it prints."""
    block = re.search(r"^```console\n(.*?)^```", README.read_text(), re.M | re.S).group(1)
    steps = []
    for line in block.splitlines():
        if line.startswith("$ "):
            command, _, remark = line[2:].partition("  # ")
            steps.append((command.strip(), remark.strip(), []))
        else:
            steps[-1][2].append(line)
    return steps


def without_what_differs(line):
    line = re.sub(r"\b[0-9a-f]{32}\b", "ID", line)
    line = re.sub(r"held by \S+:", "held by NAME:", line)
    line = re.sub(r"sleep \d+", "sleep N", line)
    return re.sub(r"for \d+s$", "for N s", line)


class Readme(unittest.TestCase):
    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
        self.project = self.root / "hello"
        self.project.mkdir()
        self.env = {
            "HOME": str(self.root),
            "XDG_CONFIG_HOME": str(self.root / "config"),
            "XDG_STATE_HOME": str(self.root / "state"),
            "XDG_RUNTIME_DIR": str(self.root),
            "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def tearDown(self):
        agent = self.root / "state/sandbox/agent/agent.json"
        if agent.exists():
            os.kill(json.loads(agent.read_text())["PID"], signal.SIGTERM)
        if self._outcome.success:
            shutil.rmtree(self.root, ignore_errors=True)
        else:
            print("kept:", self.root)

    def run_quietly(self, command):
        subprocess.run(["sh", "-c", command], cwd=self.project, env=self.env, check=True,
                       timeout=LIMIT)

    def start(self, command):
        return subprocess.Popen(["sh", "-c", command], cwd=self.project, env=self.env, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT)

    def test_the_first_session_prints_what_it_shows(self):
        steps = first_session()
        self.assertGreaterEqual(sum("sandbox exec" in command for command, _, _ in steps), 3)
        shown = next(lines for command, _, lines in steps if command == "cat Makefile")
        (self.project / "Makefile").write_text("\n".join(shown) + "\n")
        (self.project / "hello.c").write_text(PROGRAM)
        (self.project / ".gitignore").write_text("/hello\n")
        self.run_quietly("git init -q -b main && git add . && "
                         "git -c user.name=a -c user.email=a@example.com commit -qm first")
        for command, remark, lines in steps:
            other = None
            if "another terminal" in remark:
                held = re.search(r"exec `(.*)`", lines[0]).group(1)
                # Long enough for the next to come into line on a slow machine.
                other = self.start("sandbox exec -- " + re.sub(r"sleep \d+", "sleep 8", held))
                self.assertEqual(other.stdout.readline(), "held\n")
            printed, _ = self.start(command).communicate(timeout=LIMIT)
            # What a machine without bubblewrap says once.
            said = [line for line in printed.splitlines()
                    if not line.startswith("sandbox: this sandbox has no isolation")]
            # stdout and stderr are two streams: which comes first is not said.
            self.assertEqual(sorted(map(without_what_differs, said)),
                             sorted(map(without_what_differs, lines)), command)
            if other:
                other.communicate(timeout=LIMIT)


if __name__ == "__main__":
    unittest.main()
