// sandbox trust, and what a configuration file may say alone, with the real programs.
#include <sys/stat.h>

#include <boost/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/system.h"

namespace fs = std::filesystem;
using test::How;
using test::Machine;
using test::write_text;

namespace {

constexpr const char* kReaching = "env: {A: b}\nsync:\n  include: [secret]\n";

// A project whose configuration asks for an ignored file.
struct Project {
  Machine machine;
  Project() {
    machine.make_repository();
    write_text(machine.project() / ".gitignore", "secret\n");
    write_text(machine.project() / "secret", "key\n");
    write_text(machine.project() / ".sandbox.yml", kReaching);
  }
  How terminal() const {
    How how;
    how.terminal = true;
    return how;
  }
};

}  // namespace

TEST_CASE("a configuration that nobody trusts is refused without a terminal, with the line to run",
          "[X16]") {
  Project project;
  auto refused = project.machine.exec("touch ran");
  CHECK(refused.status == 2);
  CHECK(refused.err.find(".sandbox.yml:3: `sync.include` (secret)") != std::string::npos);
  CHECK(refused.err.find("--include secret") != std::string::npos);
  CHECK(refused.err.find("sandbox trust ") != std::string::npos);
  CHECK_FALSE(fs::exists(project.machine.project() / "ran"));
  CHECK(test::sandbox_count(project.machine.run({"list", "--json"}).out) == 0);
  How yes;
  yes.input = "y\n";
  CHECK(project.machine.run({"trust"}, yes).status == 2);
  CHECK(project.machine.run({"trust", "--json"}, project.terminal()).status == 2);
  CHECK_FALSE(fs::exists(project.machine.config() / "trust.json"));
  CHECK(project.machine.run({"exec", "--include", "secret", "--", "cat", "secret"}).out == "key\n");
}

TEST_CASE("trust shows what reaches beyond the sandbox and asks; no is the default", "[X16]") {
  Project project;
  for (const char* answer : {"\n", "n\n", "\x04"}) {
    INFO(answer);
    auto asked = project.machine.start({"trust"}, project.terminal());
    REQUIRE(asked.out_has("[y/N] "));
    CHECK(asked.out().find("line 3: `sync.include` (secret)") != std::string::npos);
    CHECK(asked.out().find("`env`") == std::string::npos);
    asked.type(answer);
    CHECK(asked.wait().out.find("Not trusted") != std::string::npos);
    CHECK(project.machine.exec("true").status == 2);
  }
  auto asked = project.machine.start({"trust"}, project.terminal());
  REQUIRE(asked.out_has("[y/N] "));
  asked.type("y\n");
  CHECK(asked.wait().status == 0);
  CHECK(project.machine.exec("cat secret").out == "key\n");
  CHECK(project.machine.run({"trust"}).out.find("Is trusted already: ") == 0);
  struct stat status {};
  REQUIRE(::stat((project.machine.config() / "trust.json").c_str(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
}

TEST_CASE("trust is of this content: any change is asked about again, and it can be taken back") {
  Project project;
  Machine& machine = project.machine;
  auto asked = machine.start({"trust"}, project.terminal());
  REQUIRE(asked.out_has("[y/N] "));
  asked.type("y\n");
  asked.wait();
  CHECK(machine.exec("true").status == 0);
  write_text(machine.project() / ".sandbox.yml", std::string(kReaching) + "# changed\n");
  CHECK(machine.exec("true").status == 2);
  write_text(machine.project() / ".sandbox.yml", kReaching);
  CHECK(machine.exec("true").status == 0);
  auto list = boost::json::parse(machine.run({"trust", "--list", "--json"}).out);
  REQUIRE(list.at("Trusted").as_array().size() == 1);
  CHECK(std::string(list.at("Trusted").at(0).at("File").as_string()) ==
        (fs::canonical(machine.project()) / ".sandbox.yml").string());
  CHECK(list.at("Trusted").at(0).at("SHA256").as_string().size() == 64);
  CHECK(machine.run({"trust", "--list"}).out.find(".sandbox.yml") != std::string::npos);
  CHECK(machine.run({"trust", "--remove"}).out.find("No longer trusted: ") == 0);
  CHECK(machine.run({"trust", "--remove"}).out.find("Was not trusted: ") == 0);
  CHECK(machine.exec("true").status == 2);
  CHECK(machine.run({"trust", "--list"}).out == "No configuration file is trusted.\n");
}

TEST_CASE("on a terminal the command that needs it asks by itself, and goes on") {
  Project project;
  auto refused = project.machine.start({"exec", "--", "cat", "secret"}, project.terminal());
  REQUIRE(refused.out_has("[y/N] "));
  refused.type("n\n");
  CHECK(refused.wait().status == 2);
  auto trusted = project.machine.start({"exec", "--", "cat", "secret"}, project.terminal());
  REQUIRE(trusted.out_has("[y/N] "));
  trusted.type("y\n");
  auto ended = trusted.wait();
  INFO(ended.out);
  CHECK(ended.status == 0);
  CHECK(ended.out.find("key\r\n") != std::string::npos);
  CHECK(project.machine.exec("cat secret").out == "key\n");
}

TEST_CASE("a file in which nothing reaches beyond the sandbox needs no trust") {
  Machine machine;
  machine.make_repository();
  CHECK(machine.run({"trust"}).status == 255);
  write_text(machine.project() / ".sandbox.yml", "env: {A: b}\nisolation: auto\n");
  CHECK(machine.run({"trust"}).out.find("Nothing in it reaches beyond the sandbox: ") == 0);
  CHECK(machine.exec("true").status == 0);
  CHECK(machine.run({"trust", "--list", "--remove"}).status == 2);
}
