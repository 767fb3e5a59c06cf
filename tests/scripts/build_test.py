#!/usr/bin/env python3
"""scripts/build and scripts/sandbox in a made-up checkout: setup and cmake are fakes that keep a log."""

import os
import shutil
import subprocess
import tempfile
import time
import unittest

SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts")

SETUP = 'echo "setup $*" >>"$LOG"\necho "setup talks" >&2\n'
# Configuring writes build.ninja and the cache; building makes a program that shows what it was given.
CMAKE = """
echo "cmake $*" >>"$LOG"
echo "cmake talks"
[[ -z "$(cat)" ]] || echo "read stdin" >>"$LOG"
if [[ $1 == --preset ]]; then
  mkdir -p "build/$2"
  touch "build/$2/build.ninja"
  for option; do
    if [[ $option == -D* ]]; then sed 's/^-D//; s/=/:BOOL=/' <<<"$option"; fi
  done >>"build/$2/CMakeCache.txt"
else
  [[ ! -e fails ]] || exit 1
  [[ ! -e slow ]] || sleep 0.5
  mkdir -p "$2/bin"
  printf '%s\\n' '#!/bin/bash' 'printf "<%s>" "$@"; pwd; cat; exit 7' >"$2/bin/sandbox"
  cp "$2/bin/sandbox" "$2/bin/sandbox-agent"
  chmod +x "$2"/bin/*
  echo "built" >>"$LOG"
fi
"""


class Build(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        for name in "bin", "scripts", "cmake", "protocol/wire", "agent", "cli":
            os.makedirs(os.path.join(self.root, name))
        for name in "build", "sandbox":
            shutil.copy(os.path.join(SCRIPTS, name), os.path.join(self.root, "scripts"))
        for name, body in {"scripts/setup": SETUP, "bin/cmake": CMAKE}.items():
            self.write(name, "#!/bin/bash\n" + body)
            os.chmod(os.path.join(self.root, name), 0o755)
        for name in "CMakeLists.txt", "CMakePresets.json", "cli/main.cc", "protocol/wire/frames.h":
            self.write(name, "")
        self.environment = {
            "PATH": os.path.join(self.root, "bin") + ":/usr/bin:/bin",
            "LOG": os.path.join(self.root, "log"),
        }

    def write(self, name, text):
        with open(os.path.join(self.root, name), "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, script, *arguments, cwd=None):
        return subprocess.Popen(
            [os.path.join(self.root, script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=cwd,
            env=self.environment,
        )

    def run_script(self, script, *arguments, cwd=None):
        """Its status, stdout and stderr, and the commands that it ran."""
        self.write("log", "")
        process = self.start(script, *arguments, cwd=cwd)
        out, err = process.communicate("for the command\n")
        return process.returncode, out, err, self.log()

    def log(self):
        with open(os.path.join(self.root, "log"), encoding="utf-8") as file:
            return file.read().splitlines()

    def test_a_fresh_checkout_is_set_up_configured_built_and_run(self):
        elsewhere = os.path.join(self.root, "agent")
        status, out, err, log = self.run_script("scripts/sandbox", "exec", "--", "a b", cwd=elsewhere)
        # All of stdin, stdout, the arguments, the directory and the status are the command's.
        self.assertEqual(out, f"<exec><--><a b>{elsewhere}\nfor the command\n")
        self.assertEqual(status, 7)
        self.assertIn("setup talks", err)
        self.assertIn("cmake talks", err)
        self.assertEqual(log[:2], ["setup ", "cmake --preset release"])
        self.assertIn("--target sandbox sandbox-agent", log[2])
        self.assertEqual(log[3:], ["built"])

    def test_a_second_call_runs_nothing_and_says_nothing(self):
        self.run_script("scripts/sandbox")
        status, _, err, log = self.run_script("scripts/sandbox")
        self.assertEqual((status, err, log), (7, "", []))

    def test_it_is_found_through_a_link(self):
        os.symlink(os.path.join(self.root, "scripts/sandbox"), os.path.join(self.root, "bin/s"))
        self.assertEqual(self.run_script("bin/s")[0], 7)

    def test_what_changed_is_built_again_without_configuring(self):
        for change in (
            lambda: self.write("cli/main.cc", "edited"),
            lambda: self.write("protocol/wire/new.cc", ""),
            lambda: os.remove(os.path.join(self.root, "protocol/wire/new.cc")),
            lambda: self.write("CMakeLists.txt", "edited"),
        ):
            self.run_script("scripts/build")
            time.sleep(0.02)  # more than the clock of the file system may round away
            change()
            _, _, _, log = self.run_script("scripts/build")
            self.assertEqual((log[0], log[-1], len(log)), ("setup ", "built", 3), log)

    def test_a_failed_build_runs_nothing_and_is_tried_again(self):
        self.write("fails", "")
        for _ in range(2):
            status, out, _, log = self.run_script("scripts/sandbox")
            self.assertEqual((status, out), (1, ""))
            self.assertNotIn("built", log)
        os.remove(os.path.join(self.root, "fails"))
        self.assertEqual(self.run_script("scripts/sandbox")[0], 7)

    def test_two_at_once_build_once(self):
        self.write("slow", "")
        self.write("log", "")
        both = [self.start("scripts/sandbox", "exec") for _ in range(2)]
        outputs = [process.communicate("") for process in both]
        self.assertEqual([process.returncode for process in both], [7, 7])
        self.assertEqual(self.log().count("built"), 1)
        self.assertEqual(sum("waiting for another build" in err for _, err in outputs), 1, outputs)

    def test_tests_are_built_with_warnings_as_errors_and_configured_once(self):
        self.run_script("scripts/build", "debug")
        _, _, _, log = self.run_script("scripts/build", "--tests", "debug")
        self.assertEqual(
            log[:2], ["setup --tests", "cmake --preset debug -DSANDBOX_TESTS=ON -DSANDBOX_WERROR=ON"]
        )
        self.assertTrue(log[2].endswith("--target all"), log)
        _, _, _, log = self.run_script("scripts/build", "--tests", "debug")
        self.assertFalse(any(line.startswith("cmake --preset") for line in log), log)
        _, _, _, log = self.run_script("scripts/build", "--tests", "debug", "-DSANDBOX_LINT=ON")
        self.assertTrue(any("-DSANDBOX_LINT=ON" in line for line in log), log)

    def test_a_program_that_is_gone_is_built_again(self):
        self.run_script("scripts/build")
        os.remove(os.path.join(self.root, "build/release/bin/sandbox-agent"))
        self.assertIn("built", self.run_script("scripts/build")[3])

    def test_a_ring_is_built_alone(self):
        _, _, _, log = self.run_script("scripts/build", "--tests=unit,integration", "tsan")
        self.assertTrue(log[2].endswith("--target ring_unit ring_integration"), log)
        # The programs were not built, so the next call builds them.
        _, _, _, log = self.run_script("scripts/build", "tsan")
        self.assertTrue(any("--target sandbox sandbox-agent" in line for line in log), log)

    def test_misuse_is_2(self):
        for arguments in ["--all"], ["relaese"]:
            status, out, _, log = self.run_script("scripts/build", *arguments)
            self.assertEqual((status, out, log), (2, "", []))


if __name__ == "__main__":
    unittest.main()
