#!/usr/bin/env python3
"""scripts/test with fakes for scripts/build and ctest: what it runs, how it ends."""

import os
import shutil
import subprocess
import tempfile
import unittest

TEST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/test")
BUILD = """
echo "build $*" >>"$LOG"
for name; do [[ $name == -* ]] || mkdir -p "build/$name"; done
[[ " $* " != *" ${FAIL_BUILD:-none} "* ]]
"""
CTEST = """
echo "ctest $*" >>"$LOG"
echo "some test's output"
if [[ $2 == build/${FAIL_TEST:-none} ]]; then
  printf '99%% tests passed, 1 tests failed out of %s\\n\\nThe following tests FAILED:\\n' "$2"
  exit 8
fi
printf '100%% tests passed, 0 tests failed out of %s\\n\\nTotal Test time\\n' "$2"
"""


class Test(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = folder.name
        for name, body in {"scripts/build": BUILD, "bin/ctest": CTEST}.items():
            path = os.path.join(self.root, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "w", encoding="utf-8") as file:
                file.write("#!/bin/bash\n" + body)
            os.chmod(path, 0o755)
        shutil.copy(TEST, os.path.join(self.root, "scripts/test"))

    def run_test(self, *arguments, **environment):
        log = os.path.join(self.root, "log")
        with open(log, "w", encoding="utf-8"):
            pass
        run = subprocess.run(
            [os.path.join(self.root, "scripts/test"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.path.join(self.root, "bin") + ":/usr/bin:/bin", "LOG": log} | environment,
        )
        with open(log, encoding="utf-8") as file:
            return run.returncode, run.stdout, file.read().splitlines()

    def test_everything_is_built_and_tested_and_the_largest_summary_is_last(self):
        status, out, log = self.run_test()
        self.assertEqual(status, 0)
        self.assertEqual(
            log[:3],
            [
                "build debug --tests -DSANDBOX_LINT=ON",
                "build release --tests=system",
                "build tsan --tests=unit,integration",
            ],
        )
        self.assertEqual(len(log), 6)
        self.assertRegex(log[3], r"^ctest --test-dir build/tsan .* -L \^\(unit\|integration\)\$$")
        self.assertRegex(log[4], r"^ctest --test-dir build/release .* -L system$")
        self.assertRegex(log[5], r"^ctest --test-dir build/debug .*--parallel \d+$")
        end = "100% tests passed, 0 tests failed out of build/debug\n\nTotal Test time\n"
        self.assertTrue(out.endswith(end), out)

    def test_a_failing_ring_fails_and_has_the_last_word(self):
        for ring in "tsan", "release", "debug":
            status, out, log = self.run_test(FAIL_TEST=ring)
            self.assertEqual((status, len(log)), (1, 6), ring)
            end = f"99% tests passed, 1 tests failed out of build/{ring}\n\nThe following tests FAILED:\n"
            self.assertTrue(out.endswith(end), out)

    def test_a_failing_build_fails(self):
        for preset in "debug", "release", "tsan":
            status, _, log = self.run_test(FAIL_BUILD=preset)
            self.assertNotEqual(status, 0)
            self.assertFalse(any(line.startswith("ctest") for line in log), log)

    def test_quick_is_one_build_without_lint(self):
        for arguments, preset, options in [
            (["--quick"], "debug", ""),
            (["-R", "^wire:"], "debug", " -R ^wire:"),
            (["--preset", "tsan", "-L", "unit"], "tsan", " -L unit"),
            (["--quick", "-L", "unit"], "debug", " -L unit"),
        ]:
            status, _, log = self.run_test(*arguments)
            self.assertEqual((status, log[0], len(log)), (0, f"build --tests {preset}", 2))
            self.assertRegex(log[1], rf"^ctest --test-dir build/{preset} .* -LE lint")
            self.assertTrue(log[1].endswith("-LE lint" + options), log)

    def test_a_failure_of_the_one_build_fails(self):
        self.assertNotEqual(self.run_test("--quick", FAIL_TEST="debug")[0], 0)
        self.assertNotEqual(self.run_test("--quick", FAIL_BUILD="debug")[0], 0)

    def test_misuse_is_2(self):
        for arguments in ["debug"], ["--preset"]:
            self.assertEqual(self.run_test(*arguments)[0], 2)


if __name__ == "__main__":
    unittest.main()
