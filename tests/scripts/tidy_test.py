#!/usr/bin/env python3
"""scripts/tidy in small git repositories: clang-tidy and cmake are fakes that keep a log."""

import os
import shutil
import subprocess
import tempfile
import unittest

TIDY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/tidy")
CLANG_TIDY = """
if [[ $1 == --version ]]; then echo "LLVM version ${VERSION:-14.0.6}"; exit; fi
echo "${@: -1}" >>"$LOG"
! grep -q bad "${@: -1}"
"""


class Tidy(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        self.write("bin/clang-tidy-14", "#!/bin/bash\n" + CLANG_TIDY)
        self.write("bin/cmake", "#!/bin/bash\n")
        for name in os.listdir(os.path.join(self.root, "bin")):
            os.chmod(os.path.join(self.root, "bin", name), 0o755)
        os.makedirs(os.path.join(self.root, "scripts"))
        shutil.copy(TIDY, os.path.join(self.root, "scripts/tidy"))
        self.write(".gitignore", "/build/\n/bin/\n/log\n")
        for room in "protocol", "agent", "cli", "tests":
            self.write(f"{room}/CMakeLists.txt", "")
        self.git("init", "-q", "-b", "main")

    def write(self, name, text):
        path = os.path.join(self.root, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)

    def environment(self):
        # None of the caller's GIT_*: this may run from a git hook.
        return {
            "PATH": os.path.join(self.root, "bin") + ":/usr/bin:/bin",
            "LOG": os.path.join(self.root, "log"),
            "HOME": self.root,
            "GIT_CONFIG_NOSYSTEM": "1",
        }

    def git(self, *arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(
            ["git", *identity, *arguments],
            cwd=self.root,
            env=self.environment(),
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def commit(self, **files):
        for name, text in files.items():
            self.write(name, text)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "a commit")

    def tidy(self, *arguments, **environment):
        """Its status, stderr and the files that clang-tidy was given."""
        self.write("log", "")
        os.makedirs(os.path.join(self.root, "build"), exist_ok=True)
        run = subprocess.run(
            [os.path.join(self.root, "scripts/tidy"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment() | environment,
        )
        with open(os.path.join(self.root, "log"), encoding="utf-8") as file:
            return run.returncode, run.stderr, sorted(file.read().split())

    def history(self):
        """Two commits; the second one changed agent/b.cc."""
        self.commit(**{"agent/a.cc": "", "agent/b.cc": "", "cli/c.cc": '#include "cli/d.h"\n'})
        self.commit(**{"agent/b.cc": "changed"})

    def test_on_main_the_last_commit_is_checked(self):
        self.history()
        status, err, files = self.tidy()
        self.assertEqual((status, files), (0, ["agent/b.cc"]), err)

    def test_on_a_branch_all_of_the_branch_is_checked(self):
        self.commit(**{"agent/a.cc": ""})
        self.git("update-ref", "refs/remotes/origin/main", "HEAD")
        self.commit(**{"agent/b.cc": ""})
        self.commit(**{"agent/c.cc": ""})
        self.assertEqual(self.tidy()[2], ["agent/b.cc", "agent/c.cc"])

    def test_the_first_commit_of_all_is_checked_whole(self):
        self.commit(**{"agent/a.cc": "", "agent/b.cc": ""})
        self.assertEqual(self.tidy()[2], ["agent/a.cc", "agent/b.cc"])

    def test_what_is_not_committed_is_checked_and_what_is_gone_is_not(self):
        self.history()
        self.write("agent/a.cc", "edited")
        self.write("agent/new.cc", "")
        os.remove(os.path.join(self.root, "agent/b.cc"))
        self.assertEqual(self.tidy()[2], ["agent/a.cc", "agent/new.cc"])

    def test_a_header_is_checked_where_it_is_included(self):
        self.history()
        self.write("agent/a.h", "has a source of its own")
        self.write("cli/d.h", "is included by cli/c.cc")
        self.write("cli/e.h", "is included by nothing")
        self.assertEqual(self.tidy()[2], ["agent/a.cc", "agent/b.cc", "cli/c.cc"])

    def test_all_is_every_source(self):
        self.history()
        self.assertEqual(self.tidy("--all")[2], ["agent/a.cc", "agent/b.cc", "cli/c.cc"])

    def test_a_finding_fails(self):
        self.history()
        self.write("agent/a.cc", "bad")
        status, _, files = self.tidy()
        self.assertEqual((status, files), (1, ["agent/a.cc", "agent/b.cc"]))

    def test_nothing_changed_is_success(self):
        self.history()
        self.assertEqual(self.tidy(TIDY_BASE="HEAD")[::2], (0, []))

    def test_another_version_is_skipped(self):
        self.history()
        self.assertEqual(self.tidy(VERSION="19.1.7")[::2], (77, []))


if __name__ == "__main__":
    unittest.main()
