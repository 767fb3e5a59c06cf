"""`sandbox update` from agents of another version to this one, on machines with nothing but a real
sshd.

Usage: update_test.py BIN_DIR [unittest arguments]
The other version is this build's agent with another version number in it. SANDBOX_OLD_AGENT=FILE
begins with that agent instead, the parent commit's for example; its number may then be the same.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
from sshd import LIMIT, SSHD, Laptop, MachinesTest, free_port, wait_for, write_program  # noqa: E402

BIN = pathlib.Path(sys.argv.pop(1)).resolve() if len(sys.argv) > 1 else None
OLD_AGENT = os.environ.get("SANDBOX_OLD_AGENT")
OLDER = "0.0.9"
NEWER = "9.9.9"


def version_of(program):
    """What `PROGRAM --version` ends its first words with: "sandbox-agent 0.1.0"."""
    return subprocess.run([program, "--version"], check=True, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL).stdout.split()[1]


THIS = version_of(BIN / "sandbox-agent") if BIN else ""


class Update(MachinesTest):
    bin = BIN

    @classmethod
    def setUpClass(cls):
        # The programs of other versions, for all tests.
        cls.versions = pathlib.Path(tempfile.mkdtemp(prefix="sbx-", dir="/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.versions)

    def setUp(self):
        super().setUp()
        self.bob = None

    # What there is before an update.

    def programs(self, version):
        """A directory with this client and an agent of that version."""
        directory = self.versions / version
        if directory.exists():
            return directory
        directory.mkdir()
        shutil.copy(BIN / "sandbox", directory)
        program = directory / "sandbox-agent"
        if version == OLDER and OLD_AGENT:
            shutil.copy(OLD_AGENT, program)
            return directory
        agent = (BIN / "sandbox-agent").read_bytes()
        number = b"\0" + THIS.encode() + b"\0"
        self.assertIn(number, agent)
        self.assertEqual(len(version), len(THIS))
        program.write_bytes(agent.replace(number, b"\0" + version.encode() + b"\0"))
        program.chmod(0o755)
        self.assertEqual(version_of(program), version)
        return directory

    def install_with(self, programs, *words):
        before = self.laptop.program
        self.laptop.program = programs / "sandbox"
        try:
            return self.laptop.run("boxes", "install", *words)
        finally:
            self.laptop.program = before

    def box(self, name="rig", version=OLDER, listen=True, jump=None):
        """A machine that has an agent of that version, and is a box of the laptop's."""
        machine = self.machine(name, jump=jump)
        words = ["--listen", f"127.0.0.1:{free_port()}"] if listen else []
        self.install_with(self.programs(version), name, *words)
        if not (version == OLDER and OLD_AGENT):
            self.assertEqual(self.version(name), version)
        return machine

    def broken(self, text):
        """A directory with this client and a program in the agent's place."""
        directory = self.root / "broken"
        directory.mkdir()
        shutil.copy(BIN / "sandbox", directory)
        write_program(directory / "sandbox-agent",
                      '#!/bin/sh\ncase $1 in --version) echo sandbox-agent 0.2.0; exit ;; esac\n' + text)
        return directory

    def add_bob(self, *machines):
        """Another person, whom these machines let in and who knows them as boxes."""
        if self.bob is None:
            self.bob = Laptop(self.root, BIN, "bobs", "bob")
            self.bob.make_project()
        key = self.bob.run("key").out.strip()
        for machine in machines:
            subprocess.run([machine.program, "authorize", "--state", machine.state, "--user", "bob",
                            key], check=True, stdin=subprocess.DEVNULL, capture_output=True)
            self.bob.run("boxes", "add", "--name", machine.name, "--host", machine.agent()["Address"])
        return self.bob

    # What is seen.

    def row(self, name):
        rows = json.loads(self.laptop.run("boxes", "--json").out)["Boxes"]
        return next(row for row in rows if row["Name"] == name)

    def version(self, name):
        return self.row(name)["Version"]

    def update(self, *words, status=0):
        return self.laptop.run("update", *words, status=status)

    def assert_refused(self, person, box, *texts):
        done = person.run("exec", "--box", box, "--", "true", status=75)
        for text in texts:
            self.assertIn(text, done.err)

    def workspace(self, machine):
        found = list(machine.state.glob("sandboxes/*/workspace"))
        self.assertEqual(len(found), 1)
        return found[0]

    def start_counting(self, machine):
        """A detached job that prints numbers until it is told to stop, and ends with 7."""
        job = self.laptop.run(
            "exec", "--box", machine.name, "--detach", "--", "sh", "-c",
            "i=0; while [ ! -e stop ]; do i=$((i + 1)); echo line $i; echo $i >at; sleep 0.01; done; "
            "echo last; exit 7").out.split()[0]
        self.counted(machine, 20)
        return job

    def counted(self, machine, least):
        """Waits for the job to have come that far; how far it is."""
        def at():
            try:
                number = int((self.workspace(machine) / "at").read_text())
            except (FileNotFoundError, ValueError):  # it is being written
                return 0
            return number if number >= least else 0
        return wait_for(at, f"the job comes to {least}")

    def assert_all_output(self, machine, job, least):
        """Ends the job: it printed each line once, and its status is its own."""
        (self.workspace(machine) / "stop").touch()
        done = self.laptop.run("attach", job, status=7)
        lines = done.out.splitlines()
        self.assertEqual(lines.pop(), "last")
        self.assertEqual(lines, [f"line {i + 1}" for i in range(len(lines))])
        self.assertGreaterEqual(len(lines), least)

    # The promises.

    def test_a_detached_job_and_a_user_lock_outlive_the_change_to_a_newer_agent(self):
        rig = self.box()
        bob = self.add_bob(rig)
        self.laptop.make_project()
        self.laptop.run("boxes", "lock", "--box", "rig", "--reason", "bring-up")
        since = self.row("rig")["LockedSince"]
        job = self.start_counting(rig)
        first = rig.agent_pid()

        refused = self.update("--box", "rig", status=75)
        self.assertIn("Error: box 'rig' is busy, 'exec' in progress by alice", refused.err)
        self.assertEqual(refused.out, "")
        self.assertEqual(self.update("--all").out, "rig: SKIPPED (locked or busy)\n")
        self.assertEqual(rig.agent_pid(), first)

        self.assertIn("--force-command", self.update("--help").out)
        before = self.counted(rig, 1)
        done = self.update("--box", "rig", "--force-command")
        if not OLD_AGENT:
            self.assertEqual(done.out, f"rig: updated {OLDER} to {THIS}\n")
        after = self.row("rig")
        self.assertEqual((after["Version"], after["Status"]), (THIS, "current"))
        self.assertNotEqual(rig.agent_pid(), first)
        self.assertEqual((after["LockedBy"], after["LockedSince"], after["LockReason"]),
                         ("alice", since, "bring-up"))
        self.assertEqual(after["Jobs"], 1)
        self.assert_refused(bob, "rig", "locked by alice", since)
        self.assert_refused(self.laptop, "rig", "is busy, 'exec' in progress by alice")

        self.counted(rig, before + 20)
        self.assert_all_output(rig, job, before + 20)
        self.laptop.run("exec", "--box", "rig", "--", "true")
        self.laptop.run("boxes", "unlock", "--box", "rig")
        bob.run("exec", "--box", "rig", "--", "true")

    def test_it_gets_there_by_way_of_a_jump_host(self):
        jump = self.machine("jump")
        self.box(listen=False, jump="jump")
        before = jump.logins()
        self.update("--box", "rig")
        self.assertGreater(jump.logins(), before)
        self.assertEqual((self.version("rig"), self.row("rig")["Status"]), (THIS, "current"))
        self.assertEqual(jump.files(), [])
        jump.end()  # what reaches the box goes by it
        self.assertEqual(self.row("rig")["Status"], "unreachable")

    def test_a_box_behind_its_sshd_is_updated_too_and_twice_is_once(self):
        rig = self.box(listen=False)
        self.laptop.make_project()
        self.laptop.run("exec", "--box", "rig", "--", "sh", "-c", "echo kept >ignored; echo a >g")
        self.assertIn(f"to {THIS}" if not OLD_AGENT else "rig: updated",
                      self.update("--box", "rig").out)
        self.assertEqual(self.version("rig"), THIS)
        ran = self.laptop.run("exec", "--box", "rig", "--", "cat", "f", "g")
        self.assertEqual(ran.out, "hello\na\n")
        before = rig.agent_pid()
        self.assertEqual(self.update("--box", "rig").out, f"rig: is current ({THIS})\n")
        self.assertEqual(rig.agent_pid(), before)

    def test_a_service_is_updated_by_its_service_manager(self):
        rig = self.machine()
        rig.fake_systemd("allowed")
        self.install_with(self.programs(OLDER), "rig", "--listen", f"127.0.0.1:{free_port()}")
        self.update("--box", "rig")
        self.assertEqual(self.version("rig"), THIS)
        self.assertEqual(rig.calls().count("restart"), 2)
        self.assertEqual(int((rig.root / "main").read_text()), rig.agent_pid())

    def test_L46_all_skips_locked_and_busy_boxes_and_the_others_go_on(self):
        boxes = [self.box(name) for name in ("rig1", "rig2", "rig3")]
        bob = self.add_bob(*boxes)
        self.laptop.make_project()
        bob.run("boxes", "lock", "--box", "rig1")
        self.start_counting(boxes[1])
        pids = [box.agent_pid() for box in boxes]
        logins = [box.logins() for box in boxes]
        self.laptop.env["CI"] = "true"  # would wait for 30 minutes where waiting is allowed
        done = self.update("--all")
        lines = done.out.splitlines()
        self.assertEqual(lines[:2], ["rig1: SKIPPED (locked or busy)", "rig2: SKIPPED (locked or busy)"])
        self.assertTrue(lines[2].startswith("rig3: updated"), lines)
        self.assertIn("locked by bob", done.err)
        self.assertEqual([box.agent_pid() == pid for box, pid in zip(boxes, pids)],
                         [True, True, False])
        # Nobody logged in to look at a box that it did not have.
        self.assertEqual([box.logins() for box in boxes[:2]], logins[:2])
        (self.workspace(boxes[1]) / "stop").touch()

    def test_all_goes_on_behind_a_box_that_does_not_answer(self):
        dead, rig = self.box("dead"), self.box("rig")
        os.kill(dead.agent_pid(), signal.SIGKILL)
        done = self.update("--all", "--json", status=255)
        dead_row, rig_row = json.loads(done.out)["Boxes"]
        self.assertEqual((dead_row["Name"], dead_row["Result"]), ("dead", "failed"))
        self.assertIn("cannot reach the box dead", dead_row["Why"])
        self.assertEqual((rig_row["Name"], rig_row["Result"], rig_row["To"]), ("rig", "updated", THIS))

    def hold_up(self, machine, program, when):
        """That program waits there at that first argument; how to see it, and to let it go."""
        real = shutil.which(program)
        write_program(machine.bin / program,
                      f'#!/bin/sh\ncase $1 in {when}) touch {machine.root}/held\n'
                      f'while [ ! -e {machine.root}/go ]; do sleep 0.02; done ;; esac\n'
                      f'exec {real} "$@"\n')
        return machine.root / "held", machine.root / "go"

    def test_nobody_gets_in_from_the_first_look_to_the_end(self):
        rig = self.box()
        bob = self.add_bob(rig)
        held, go = self.hold_up(rig, "dd", "of=*")
        with self.laptop.start("update", "--box", "rig") as process:
            try:
                wait_for(held.exists, "the copy begins")
                self.assert_refused(bob, "rig", "is busy, 'update' in progress by alice")
            finally:
                go.touch()
            _, err = process.communicate(timeout=LIMIT)
        self.assertEqual(process.returncode, 0, err)
        bob.run("exec", "--box", "rig", "--", "true")

    def test_a_client_that_dies_while_it_copies_changes_nothing(self):
        rig = self.box()
        before = (rig.files(), rig.agent_pid())
        held, go = self.hold_up(rig, "dd", "of=*")
        process = self.laptop.start("update", "--box", "rig", start_new_session=True)
        wait_for(held.exists, "the copy begins")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        go.touch()
        wait_for(lambda: (rig.files(), rig.agent_pid()) == before, "the staged copy is removed")
        self.laptop.make_project()
        self.laptop.run("exec", "--box", "rig", "--", "true")

    def test_a_client_that_dies_while_the_agents_change_leaves_a_box_that_works(self):
        rig = self.box()
        held, go = self.hold_up(rig, "setsid", "*")
        process = self.laptop.start("update", "--box", "rig", start_new_session=True)
        wait_for(held.exists, "the new agent is started")
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        go.touch()
        wait_for((rig.state / "agent.json").exists, "the new agent listens")
        self.assertEqual(self.version("rig"), THIS)
        self.assertEqual(self.update("--box", "rig").out, f"rig: is current ({THIS})\n")

    def test_a_new_agent_that_does_not_start_is_rolled_back(self):
        rig = self.box()
        bob = self.add_bob(rig)
        self.laptop.make_project()
        version = self.version("rig")
        self.laptop.run("boxes", "lock", "--box", "rig")
        job = self.start_counting(rig)
        program = rig.program.read_bytes()
        self.laptop.program = self.broken("echo 'it has no legs' >&2; exit 3\n") / "sandbox"
        done = self.update("--box", "rig", "--force-command", status=255)
        self.assertIn("the new agent of the box rig does not run", done.err)
        self.assertIn("it has no legs", done.err)
        self.assertIn("The one before runs there again", done.err)
        self.assertEqual(self.version("rig"), version)
        self.assertEqual(rig.program.read_bytes(), program)
        self.assert_refused(bob, "rig", "locked by alice")
        self.assert_all_output(rig, job, self.counted(rig, 1))

    def test_a_new_agent_that_does_not_answer_is_rolled_back(self):
        rig = self.box(listen=False)
        write_program(rig.bin / "ln", "#!/bin/sh\nexit 1\n")  # a file system without hard links
        version = self.version("rig")
        programs = self.broken(f'[ "$1" = serve ] && exec {BIN}/sandbox-agent "$@"\nexit 3\n')
        self.laptop.program = programs / "sandbox"
        done = self.update("--box", "rig", status=255)
        self.assertIn("the new agent of the box rig does not answer as it should", done.err)
        self.assertIn(f"The one before ({version}) runs there again", done.err)
        self.assertEqual(self.version("rig"), version)

    def test_a_newer_agent_is_left_alone_and_the_client_is_to_be_updated(self):
        rig = self.box(version=NEWER)
        before = rig.agent_pid()
        done = self.update("--box", "rig", status=255)
        self.assertEqual(done.out, f"rig: has a newer agent ({NEWER}) than this sandbox ({THIS}): "
                                   "update this one\n")
        self.assertEqual(rig.agent_pid(), before)
        self.laptop.make_project()  # they work together all the same
        self.assertEqual(self.laptop.run("exec", "--box", "rig", "--", "cat", "f").out, "hello\n")

    def test_what_cannot_be_updated_is_named_and_left_alone(self):
        rig = self.box()
        before = rig.agent_pid()
        for words, status, text in (
                ([], 2, "--box NAME or --all is missing"),
                (["--all", "--box", "rig"], 2, "exclude each other"),
                (["--box", "nobody"], 2, "nobody"),
                (["--box", "local"], 2, "this machine's own agent")):
            done = self.update(*words, status=status)
            self.assertIn(text, done.err)
        bob = self.add_bob(rig)
        done = bob.run("update", "--box", "rig", status=2)
        self.assertIn("was not installed from here", done.err)
        self.assertIn("sandbox boxes install rig --host SSH_HOST", done.err)
        self.assertEqual(rig.agent_pid(), before)


if __name__ == "__main__":
    if SSHD is None:
        print("there is no sshd on this machine: scripts/setup --tests installs it", file=sys.stderr)
        sys.exit(1)
    unittest.main(verbosity=2)
