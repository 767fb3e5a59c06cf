#!/usr/bin/env python3
"""scripts/check-layers on small trees: each rule is broken once and must be complained about."""

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest

CHECK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../scripts/check-layers")


def load():
    sys.dont_write_bytecode = True  # or it lands in scripts/
    loader = importlib.machinery.SourceFileLoader("check_layers", CHECK)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("check_layers", loader))
    loader.exec_module(module)
    return module


class CheckLayers(unittest.TestCase):
    findings = staticmethod(load().findings)

    def refused(self, path, line, complaint):
        with self.subTest(path=path, line=line):
            found = list(self.findings(path, f"// A file.\n{line}\n"))
            self.assertEqual([number for number, _ in found], [2], found)
            self.assertIn(complaint, found[0][1])

    def allowed(self, path, line):
        with self.subTest(path=path, line=line):
            self.assertEqual(list(self.findings(path, f"{line}\n")), [])

    def test_rooms_include_only_what_the_table_names(self):
        for path, header in [
            ("protocol/wire/frames.h", "protocol/os/fd.h"),
            ("protocol/os/fd.h", "protocol/ssh/key.h"),
            ("protocol/os/fd.h", "protocol/sync/snapshot.h"),
            ("protocol/os/fd.h", "agent/log.h"),
            ("protocol/ssh/key.h", "protocol/sync/snapshot.h"),
            ("protocol/ssh/key.h", "cli/error.h"),
            ("protocol/sync/snapshot.cc", "protocol/ssh/key.h"),
            ("protocol/sync/snapshot.cc", "cli/error.h"),
            ("agent/steps.cc", "cli/error.h"),
            ("agent/steps.cc", "agent/supervisor/jobs.h"),
            ("agent/steps.cc", "tests/support/catch.h"),
            ("agent/supervisor/jobs.cc", "agent/log.h"),
            ("agent/supervisor/jobs.cc", "protocol/ssh/key.h"),
            ("cli/main.cc", "agent/log.h"),
            ("tests/cli/error_test.cc", "agent/log.h"),
            ("tests/agent/log_test.cc", "cli/error.h"),
        ]:
            self.refused(path, f'#include "{header}"', f"may not include {header}")

    def test_main_joins_the_agent_and_its_supervisor(self):
        self.allowed("agent/main.cc", '#include "agent/supervisor/jobs.h"')

    def test_what_the_table_names_is_allowed(self):
        for path, header in [
            ("protocol/sync/snapshot.cc", "protocol/os/fd.h"),
            ("agent/supervisor/jobs.cc", "protocol/sync/workspace.h"),
            ("agent/supervisor/jobs.cc", "agent/supervisor/jobs.h"),
            ("cli/exec.cc", "protocol/ssh/client.h"),
            ("tests/integration/exec_test.cc", "agent/log.h"),
            ("tests/integration/exec_test.cc", "cli/error.h"),
        ]:
            self.allowed(path, f'#include "{header}"')

    def test_includes_are_paths_from_the_root(self):
        self.refused("cli/exec.cc", '#include "error.h"', "not a path from the root")
        self.refused("cli/exec.cc", '#include "../agent/log.h"', "not a path from the root")

    def test_outside_libraries_have_one_owner(self):
        for path, header, name in [
            ("agent/listener.cc", "libssh/server.h", "libssh"),
            ("cli/exec.cc", "libssh/libssh.h", "libssh"),
            ("protocol/os/fd.cc", "libssh/libssh.h", "libssh"),
            ("agent/listener.cc", "sqlite3.h", "SQLite"),
            ("agent/supervisor/jobs.cc", "sqlite3.h", "SQLite"),
            ("cli/exec.cc", "boost/program_options.hpp", "Boost.Program_options"),
            ("agent/options.cc", "boost/program_options/parsers.hpp", "Boost.Program_options"),
            ("agent/options.cc", "yaml-cpp/yaml.h", "yaml-cpp"),
            ("agent/store.cc", "sqlite3.h", "SQLite"),
            ("protocol/os/fd.cc", "spdlog/spdlog.h", "spdlog"),
        ]:
            self.refused(path, f"#include <{header}>", f"{name} belongs to")
        self.allowed("protocol/ssh/session.cc", "#include <libssh/libssh.h>")
        self.allowed("agent/database.cc", "#include <sqlite3.h>")
        self.allowed("cli/command_table.cc", "#include <boost/program_options.hpp>")
        self.allowed("cli/config_file.cc", "#include <yaml-cpp/yaml.h>")

    def test_wire_is_bytes_in_values_out(self):
        for header in [
            "boost/asio/io_context.hpp",
            "unistd.h",
            "sys/types.h",
            "fstream",
            "iostream",
            "filesystem",
            "thread",
            "ctime",
        ]:
            self.refused("protocol/wire/frames.cc", f"#include <{header}>", "bytes in, values out")
        for header in ["string_view", "chrono", "boost/json.hpp", "boost/system/result.hpp"]:
            self.allowed("protocol/wire/frames.cc", f"#include <{header}>")

    def test_wire_has_no_clock(self):
        self.refused(
            "protocol/wire/frames.cc", "auto now = std::chrono::steady_clock::now();", "has no clock"
        )

    def test_processes_are_started_in_one_place(self):
        for call in [
            "fork();",
            "if (::execve(path, argv, envp) != 0) {}",
            "posix_spawnp(&pid, path, nullptr, nullptr, argv, envp);",
            'std::system("true");',
            'FILE* pipe = popen("true", "r");',
        ]:
            self.refused("protocol/os/terminal.cc", call, "in protocol/os/process alone")
        self.allowed("protocol/os/process.cc", "fork();")
        self.allowed("protocol/os/process_group.cc", "::execve(path, argv, envp);")

    def test_comments_literals_and_members_are_no_calls(self):
        for line in [
            "// fork() is elsewhere",
            '/* #include "cli/error.h" */',
            'say("fork() failed");',
            "runner.system(1); runner->fork();",
            "int forks(0);",
        ]:
            self.allowed("agent/steps.cc", line)

    def test_a_tree_is_walked_and_every_finding_printed(self):
        bad = '#include "cli/a.h"\n#include <libssh/libssh.h>\n'
        with tempfile.TemporaryDirectory() as root:
            for path, text in {"agent/supervisor/a.cc": bad, "cli/a.h": "fork();\n"}.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)))
                with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                    file.write(text)
            run = subprocess.run([CHECK, root], capture_output=True, text=True, check=False)
            places = [":".join(line.split(":")[:2]) for line in run.stdout.splitlines()]
            self.assertEqual(
                places, ["agent/supervisor/a.cc:1", "agent/supervisor/a.cc:2", "cli/a.h:1"]
            )
            self.assertEqual(run.returncode, 1)

            os.remove(os.path.join(root, "cli/a.h"))
            os.remove(os.path.join(root, "agent/supervisor/a.cc"))
            run = subprocess.run([CHECK, root], capture_output=True, text=True, check=False)
            self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "", ""))


if __name__ == "__main__":
    unittest.main()
