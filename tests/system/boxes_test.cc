// The list of boxes, as a person at a shell sees it: two people, real agents, keys of their own.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>

#include <boost/json.hpp>

#include "protocol/os/fd.h"
#include "protocol/ssh/key.h"
#include "tests/support/catch.h"
#include "tests/support/team.h"

namespace {

namespace fs = std::filesystem;
namespace json = boost::json;
using test::file_text;
using test::has;
using test::line_with;
using test::lines_of;
using test::Machine;
using test::SharedBox;
using test::Words;

std::string boxes_file(const Machine& machine) {
  return file_text(machine.config() / "boxes.json");
}

// Takes connections and never says a word.
class SilentBox {
 public:
  SilentBox() : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    if (::bind(socket_.get(), generic, size) != 0 || ::listen(socket_.get(), 64) != 0 ||
        ::getsockname(socket_.get(), generic, &size) != 0) {
      throw std::runtime_error("no socket");
    }
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }
  const std::string& address() const { return address_; }

 private:
  protocol::os::Fd socket_;
  std::string address_;
};

// Boxes that were known before this test began.
void write_boxes(const Machine& machine,
                 const std::vector<std::pair<std::string, std::string>>& all) {
  json::object boxes;
  for (const auto& [name, address] : all) {
    boxes[name] = json::object({{"address", address}});
  }
  fs::create_directories(machine.config());
  fs::permissions(machine.config(), fs::perms::owner_all);
  test::write_text(machine.config() / "boxes.json",
                   json::serialize(json::object({{"version", 1}, {"boxes", boxes}})));
}

std::string other_key() {
  return protocol::ssh::PrivateKey::generate_ed25519()->public_key().text();
}

}  // namespace

TEST_CASE("boxes add pins the host key and prints it, asking nothing") {
  SharedBox box("rig");
  Machine alice;
  box.authorize(alice, "alice");
  auto added = alice.run({"boxes", "add", "--name", "rig", "--host", box.address()});
  CHECK(added.status == 0);
  CHECK(has(added.out, "rig"));
  CHECK(has(added.out, box.address()));
  CHECK(has(added.out, "SHA256:"));
  CHECK(has(added.out, box.host_key()));
  CHECK(has(boxes_file(alice), box.host_key()));

  auto again = alice.run({"boxes", "add", "--name", "rig", "--host", "127.0.0.1:9"});
  CHECK(again.status == 2);
  CHECK(has(again.err, "rig already, at " + box.address()));
  CHECK_FALSE(has(boxes_file(alice), "127.0.0.1:9"));

  auto answered = alice.run({"boxes", "add", "--name", "rig2", "--host", box.address(), "--json"});
  auto answer = json::parse(answered.out);
  CHECK(answer.at("Name") == "rig2");
  CHECK(answer.at("Address") == json::value(box.address()));
  CHECK(answer.at("HostKey") == json::value(box.host_key()));
}

TEST_CASE("boxes add takes a key or a fingerprint to match, and nothing else goes") {
  SharedBox box("rig");
  Machine alice;
  box.authorize(alice, "alice");
  auto add = [&](const std::string& name, const std::string& key) {
    return alice.run({"boxes", "add", "--name", name, "--host", box.address(), "--host-key", key});
  };
  std::string fingerprint = protocol::ssh::PublicKey::parse(box.host_key())->fingerprint();
  CHECK(add("by-key", box.host_key()).status == 0);
  CHECK(add("by-line", box.host_key() + " root@rig").status == 0);
  CHECK(add("by-print", fingerprint).status == 0);
  std::string before = boxes_file(alice);
  auto wrong = add("wrong", other_key());
  CHECK(wrong.status == 255);
  CHECK(has(wrong.err, "host key"));
  CHECK(has(wrong.err, fingerprint));
  CHECK(has(wrong.err, "Nothing was changed"));
  CHECK(add("wrong", "SHA256:AAAA").status == 255);
  CHECK(add("wrong", "nonsense").status == 2);
  CHECK(boxes_file(alice) == before);
}

TEST_CASE("boxes add writes nothing about a box that cannot be used") {
  SharedBox box("rig");
  Machine stranger;
  struct Case {
    Words words;
    int status;
    std::string says;
  };
  SilentBox silent;
  for (const Case& one : {
           Case{{"--name", "x", "--host", "127.0.0.1:1"}, 255, "cannot reach the box x"},
           Case{{"--name", "x", "--host", silent.address()}, 255, "does not answer in time"},
           Case{{"--name", "x", "--host", box.address()}, 255, "does not accept this user's key"},
           Case{{"--name", "local", "--host", box.address()}, 2, "built-in"},
           Case{{"--name", "a b", "--host", box.address()}, 2, "cannot be the name"},
           Case{{"--name", "x", "--host", "u@h"}, 2, "--host takes"},
           Case{{"--name", "x"}, 2, "--host HOST"},
           Case{{"--host", box.address()}, 2, "--name"},
           Case{{"--name", "x", "--host", "h", "--via-ssh", "h"}, 2, "exclude"},
           Case{{"--name", "x", "--via-ssh", "-oProxyCommand=x"}, 2, "--via-ssh"},
           Case{{"--name", "x", "--host", "h", "--agent", "a"}, 2, "--agent"},
       }) {
    Words words = {"boxes", "add"};
    words.insert(words.end(), one.words.begin(), one.words.end());
    INFO(one.says);
    auto ended = stranger.run(words);
    CHECK(ended.status == one.status);
    CHECK(ended.out.empty());
    CHECK(has(ended.err, one.says));
    CHECK(boxes_file(stranger).empty());
  }
  auto denied = stranger.run({"boxes", "add", "--name", "x", "--host", box.address()});
  CHECK(has(denied.err, "sandbox-agent authorize"));
  CHECK(has(denied.err, stranger.run({"key"}).out.substr(0, 60)));
}

TEST_CASE("a box whose host key has changed is refused until the new key is accepted") {
  Machine alice;
  alice.make_repository();
  auto first = std::make_unique<SharedBox>("rig");
  first->introduce(alice, "alice");
  std::string old_key = first->host_key();
  SharedBox second("rig");
  second.authorize(alice, "alice");
  // The second box takes the first one's place.
  std::string text = boxes_file(alice);
  text.replace(text.find(first->address()), first->address().size(), second.address());
  test::write_text(alice.config() / "boxes.json", text);
  first.reset();

  for (const Words& words : {Words{"exec", "--box", "rig", "--", "true"},
                             Words{"boxes", "edit", "--name", "rig", "--host", second.address()}}) {
    auto refused = alice.run(words);
    CHECK(refused.status == 255);
    CHECK(refused.out.empty());
    CHECK(has(refused.err, "another host key"));
    CHECK(has(refused.err, "boxes edit --name rig --host-key"));
    CHECK(boxes_file(alice) == text);
  }
  auto listed = alice.run({"boxes"});
  CHECK(has(line_with(listed.out, "rig"), "unreachable"));
  CHECK(has(listed.err, "another host key"));

  CHECK(alice.run({"boxes", "edit", "--name", "rig", "--host-key", other_key()}).status == 255);
  CHECK(boxes_file(alice) == text);
  auto accepted = alice.run({"boxes", "edit", "--name", "rig", "--host-key", second.host_key()});
  CHECK(accepted.status == 0);
  CHECK_FALSE(has(boxes_file(alice), old_key));
  CHECK(alice.run({"exec", "--box", "rig", "--", "true"}).status == 0);
}

TEST_CASE("a box that does not accept this user's key says what to do there, and keeps its place") {
  SharedBox box("rig");
  Machine alice;
  Machine bob;
  bob.make_repository();
  box.introduce(alice, "alice");
  write_boxes(bob, {{"rig", box.address()}});
  std::string before = boxes_file(bob);
  for (const Words& words :
       {Words{"exec", "--box", "rig", "--", "true"}, Words{"start", "--box", "rig"},
        Words{"boxes", "lock", "--box", "rig"}}) {
    auto refused = bob.run(words);
    CHECK(refused.status == 255);
    CHECK(refused.out.empty());
    CHECK(has(refused.err, "the box rig (" + box.address() + ") does not accept this user's key"));
    CHECK(has(refused.err, "sandbox-agent authorize"));
    CHECK(has(refused.err, bob.run({"key"}).out.substr(0, 60)));
  }
  CHECK(boxes_file(bob) == before);
  CHECK(test::sandbox_count(bob.run({"list", "--json"}).out) == 0);
}

TEST_CASE("the first command on a box that is not pinned yet pins it, and says so") {
  SharedBox box("rig");
  Machine alice;
  alice.make_repository();
  box.authorize(alice, "alice");
  write_boxes(alice, {{"rig", box.address()}});
  auto first = alice.run({"exec", "--box", "rig", "--", "true"});
  CHECK(first.status == 0);
  CHECK(has(first.err, "first contact with rig"));
  CHECK(has(boxes_file(alice), box.host_key()));
  CHECK_FALSE(has(alice.run({"exec", "--box", "rig", "--", "true"}).err, "first contact"));
}

TEST_CASE("a claimed user name counts on the local box alone") {
  SharedBox box("rig");
  Machine alice;
  box.introduce(alice, "alice");
  auto lock = [&](const std::string& where, const std::string& user) {
    test::How how;
    how.environment["SANDBOX_USER"] = user;
    return alice.run({"boxes", "lock", "--box", where}, how);
  };
  CHECK(has(lock("rig", "bob").out, "'rig' locked by alice at"));
  CHECK(has(lock("local", "ann").out, "'local' locked by ann at"));
  auto refused = lock("local", "bob");
  CHECK(refused.status == 75);
  CHECK(has(refused.err, "already locked by ann"));
}

TEST_CASE("a renamed box keeps its sandboxes") {
  SharedBox box("rig");
  Machine alice;
  alice.make_repository();
  box.introduce(alice, "alice");
  REQUIRE(alice.run({"exec", "--box", "rig", "--", "sh", "-c", "echo x > /tmp/$$; rm /tmp/$$"})
              .status == 0);
  auto before = json::parse(alice.run({"list", "--json", "--box", "rig"}).out);
  auto renamed = alice.run({"boxes", "edit", "--name", "rig", "--new-name", "bench"});
  CHECK(renamed.status == 0);
  CHECK(has(renamed.out, "bench"));
  auto gone = alice.run({"exec", "--box", "rig", "--", "true"});
  CHECK(gone.status == 2);
  CHECK(has(gone.err, "no box `rig`"));
  CHECK(has(gone.err, "local, bench"));
  auto after = json::parse(alice.run({"list", "--json", "--box", "bench"}).out);
  REQUIRE(after.at("Sandboxes").as_array().size() == 1);
  CHECK(after.at("Sandboxes").at(0).at("RunID") == before.at("Sandboxes").at(0).at("RunID"));
  CHECK(after.at("Sandboxes").at(0).at("Status") == "ready");
}

TEST_CASE("boxes edit says what it cannot do, and does nothing then") {
  SharedBox box("rig");
  Machine alice;
  box.introduce(alice, "alice");
  alice.run({"boxes", "add", "--name", "two", "--host", box.address()});
  std::string before = boxes_file(alice);
  for (const Words& words :
       {Words{"--name", "rig"}, Words{"--name", "none", "--new-name", "x"},
        Words{"--name", "local", "--new-name", "x"}, Words{"--name", "rig", "--new-name", "two"},
        Words{"--name", "rig", "--new-name", "a b"}, Words{"--name", "127.0.0.1:4", "--host", "h"},
        Words{"--new-name", "x"}}) {
    Words all = {"boxes", "edit"};
    all.insert(all.end(), words.begin(), words.end());
    auto ended = alice.run(all);
    CHECK(ended.status == 2);
    CHECK(has(ended.err, "Error:"));
    CHECK(boxes_file(alice) == before);
  }
  CHECK(alice.run({"boxes", "edit", "--name", "rig", "--host", "127.0.0.1:1"}).status == 255);
  CHECK(boxes_file(alice) == before);
}

TEST_CASE("a box is deleted when somebody says so, and not otherwise") {
  SharedBox box("rig");
  Machine alice;
  box.introduce(alice, "alice");
  auto silent = alice.run({"boxes", "delete", "--name", "rig"});
  CHECK(silent.status == 2);
  CHECK(has(silent.err, "--yes"));
  test::How terminal;
  terminal.terminal = true;
  auto ask = [&](const std::string& answer) {
    auto running = alice.start({"boxes", "delete", "--name", "rig"}, terminal);
    REQUIRE(running.out_has("Delete the box rig"));
    running.type(answer);
    return running.wait();
  };
  CHECK(ask("\n").status == 1);
  CHECK(ask("no\n").status == 1);
  CHECK(ask("\x04").status == 1);
  CHECK(has(boxes_file(alice), "rig"));
  auto yes = ask("y\n");
  CHECK(yes.status == 0);
  CHECK(has(yes.out, "Deleted box rig"));
  CHECK_FALSE(has(boxes_file(alice), "rig"));
  auto unknown = alice.run({"boxes", "delete", "--name", "rig", "--yes"});
  CHECK(unknown.status == 2);
  CHECK(has(unknown.err, "no box `rig`"));
  CHECK(alice.run({"boxes", "delete", "--name", "local", "--yes"}).status == 2);
  box.introduce(alice, "alice");
  CHECK(json::parse(alice.run({"boxes", "delete", "--name", "rig", "--yes", "--json"}).out)
            .at("Deleted") == "rig");
}

TEST_CASE("a deleted box leaves its sandboxes alone, and they are there when it is added again") {
  SharedBox box("rig");
  Machine alice;
  alice.make_repository();
  box.introduce(alice, "alice");
  REQUIRE(alice.run({"exec", "--box", "rig", "--", "true"}).status == 0);
  auto deleted = alice.run({"boxes", "delete", "--name", "rig", "--yes"});
  CHECK(deleted.status == 0);
  CHECK(has(deleted.err, "A sandbox on record stays there"));
  auto listed = json::parse(alice.run({"list", "--all", "--json"}).out);
  REQUIRE(listed.at("Sandboxes").as_array().size() == 1);
  CHECK(listed.at("Sandboxes").at(0).at("Status") == "unreachable");
  box.introduce(alice, "alice");
  listed = json::parse(alice.run({"list", "--all", "--json"}).out);
  CHECK(listed.at("Sandboxes").at(0).at("Status") == "ready");
}

TEST_CASE("boxes travel from one machine to another with their host keys") {
  SharedBox box("rig");
  Machine alice;
  Machine bob;
  box.introduce(alice, "alice");
  box.authorize(bob, "bob");
  auto exported = alice.run({"boxes", "export"});
  CHECK(exported.status == 0);
  test::How from;
  from.input = exported.out;
  auto imported = bob.run({"boxes", "import"}, from);
  CHECK(imported.status == 0);
  CHECK(has(imported.out, "Imported 1 box: rig"));
  CHECK(has(boxes_file(bob), box.host_key()));
  CHECK(has(bob.run({"boxes", "import"}, from).out, "Imported 0 boxes"));  // the same ones again

  std::string file = (alice.root() / "boxes-of-alice").string();
  CHECK(alice.run({"boxes", "export", file}).status == 0);
  auto kept = alice.run({"boxes", "export", file});
  CHECK(kept.status == 2);
  CHECK(has(kept.err, "is there already"));
  CHECK(alice.run({"boxes", "export", "--force", file}).status == 0);

  // Another key under the same name does not slip in.
  std::string before = boxes_file(bob);
  std::string evil = exported.out;
  evil.replace(evil.find(box.host_key()), box.host_key().size(), other_key());
  evil.replace(evil.find("{\n\"rig\""), 1, "{\"new\":{\"address\":\"h:1\"},");
  test::write_text(file, evil);
  auto refused = bob.run({"boxes", "import", file});
  CHECK(refused.status == 255);
  CHECK(has(refused.err, "rig"));
  CHECK(has(refused.err, "--force"));
  CHECK(boxes_file(bob) == before);
  auto forced = json::parse(bob.run({"boxes", "import", "--force", file, "--json"}).out);
  CHECK(forced.at("Imported").at(0) == "new");
  CHECK(forced.at("Replaced").at(0) == "rig");
  CHECK_FALSE(has(boxes_file(bob), box.host_key()));

  for (const char* text : {"", "{}", "{\"version\":1,\"boxes\":{\"a b\":{\"address\":\"h:1\"}}}",
                           "{\"version\":1,\"boxes\":{\"local\":{\"address\":\"h:1\"}}}"}) {
    INFO(text);
    before = boxes_file(bob);
    test::write_text(file, text);
    CHECK(bob.run({"boxes", "import", file}).status != 0);
    CHECK(boxes_file(bob) == before);
  }
  CHECK(bob.run({"boxes", "import", (bob.root() / "none").string()}).status == 255);
}

TEST_CASE("the table has a header, a rule and one row for each box, in natural order", "[L34]") {
  SharedBox box("rig2");
  Machine alice;
  box.introduce(alice, "alice");
  REQUIRE(alice.run({"boxes", "add", "--name", "rig10", "--host", box.address()}).status == 0);
  for (const Words& words : {Words{"boxes"}, Words{"boxes", "list"}}) {
    auto listed = alice.run(words);
    CHECK(listed.status == 0);
    CHECK(listed.err.empty());
    auto lines = lines_of(listed.out);
    REQUIRE(lines.size() >= 4);
    CHECK(lines[0].find("name") == 0);
    std::size_t at = 0;
    for (const char* column : {"name", "address", "version", "status", "sandboxes"}) {
      auto found = lines[0].find(column, at);
      REQUIRE(found != std::string::npos);
      at = found + 1;
    }
    CHECK(lines[1] == std::string(lines[0].size(), '='));
    CHECK(lines[2].rfind("rig2 ", 0) == 0);
    CHECK(lines[3].rfind("rig10 ", 0) == 0);
    for (int row : {2, 3}) {
      CHECK(has(lines[static_cast<std::size_t>(row)], box.address()));
      CHECK(has(lines[static_cast<std::size_t>(row)], "current"));
    }
    CHECK(has(listed.out, "CLI version: "));
  }
}

TEST_CASE("dead boxes are shown as unreachable, and all together cost one time limit") {
  SharedBox box("rig");
  Machine alice;
  box.introduce(alice, "alice");
  std::vector<std::unique_ptr<SilentBox>> silent;
  std::vector<std::pair<std::string, std::string>> boxes = {{"rig", box.address()},
                                                            {"gone", "127.0.0.1:1"}};
  for (int i = 0; i < 20; ++i) {
    silent.push_back(std::make_unique<SilentBox>());
    boxes.emplace_back("silent" + std::to_string(i), silent.back()->address());
  }
  write_boxes(alice, boxes);
  auto running = alice.start({"boxes"});
  auto listed = running.wait(std::chrono::seconds(40));  // one after the other they need twice that
  CHECK(listed.status == 0);
  CHECK(has(line_with(listed.out, "rig"), "current"));
  CHECK(has(line_with(listed.out, "gone"), "unreachable"));
  CHECK(has(line_with(listed.out, "silent7"), "unreachable"));
  CHECK(has(listed.out, "21 boxes are unreachable"));
  CHECK(has(listed.err, "gone: cannot reach the box"));
  CHECK(has(listed.err, "silent7: "));
  // Nothing was pinned by looking.
  CHECK_FALSE(has(boxes_file(alice), "hostKey"));
}

TEST_CASE("the list in JSON has all boxes, also when there are none") {
  Machine alice;
  auto none = alice.run({"boxes", "--json"});
  CHECK(none.status == 0);
  CHECK(json::parse(none.out).at("Boxes").as_array().empty());
  CHECK(has(alice.run({"boxes"}).out, "No boxes."));
  CHECK(alice.agent_pid() == 0);
  SharedBox box("rig");
  box.introduce(alice, "alice");
  auto one = json::parse(alice.run({"boxes", "list", "--json"}).out);
  REQUIRE(one.at("Boxes").as_array().size() == 1);
  CHECK(one.at("Boxes").at(0).at("Name") == "rig");
  CHECK(one.at("Boxes").at(0).at("Status") == "current");
  CHECK(one.at("Boxes").at(0).at("Sandboxes") == 0);
}

TEST_CASE("the local box is listed while its agent runs, and never started for that") {
  Machine alice;
  alice.make_repository();
  CHECK(has(alice.run({"boxes"}).out, "No boxes."));
  CHECK(alice.agent_pid() == 0);
  REQUIRE(alice.exec("true").status == 0);
  auto listed = alice.run({"boxes"});
  CHECK(has(line_with(listed.out, "local"), "current"));
}

TEST_CASE(
    "the box is chosen by the command line, then by SANDBOX_BOX, and never by the file alone") {
  SharedBox box("rig");
  Machine alice;
  alice.make_repository();
  box.introduce(alice, "alice");
  auto box_of = [&](const Words& words, const std::string& variable) {
    Words all = {"exec", "--json"};
    all.insert(all.end(), words.begin(), words.end());
    all.insert(all.end(), {"--", "true"});
    test::How how;
    how.environment["SANDBOX_BOX"] = variable;
    auto ended = alice.run(all, how);
    INFO(ended.out << ended.err);
    auto answer = json::parse(ended.out);
    if (answer.get_object().contains("Error")) {
      return std::string(answer.at("Error").at("Message").as_string());
    }
    return std::string(answer.at("Box").as_string());
  };
  CHECK(box_of({}, "rig") == "rig");
  CHECK(box_of({"--box", "rig"}, "") == "rig");
  CHECK(box_of({"--box", "rig"}, "none") == "rig");
  CHECK(has(box_of({}, "none"), "no box `none`"));
  test::write_text(alice.project() / ".sandbox.yml", "box: rig\n");
  CHECK(has(box_of({}, ""), "the file alone may not say it"));
  CHECK(box_of({}, "rig") == "rig");
  CHECK(box_of({"--box", "rig"}, "") == "rig");
}

TEST_CASE(
    "boxes shows all of them whichever SANDBOX_BOX says to use, and with --box only that one") {
  SharedBox rig("rig");
  SharedBox other("rig2");
  Machine alice;
  rig.introduce(alice, "alice");
  other.authorize(alice, "alice");
  auto names = [&](const Words& words) {
    std::string all;
    auto answer = json::parse(alice.run(words).out);
    for (const auto& row : answer.at("Boxes").as_array()) {
      all += (all.empty() ? "" : " ") + std::string(row.at("Name").as_string()) + "=" +
             std::string(row.at("Status").as_string());
    }
    return all;
  };
  alice.environment["SANDBOX_BOX"] = other.address();  // on no record
  CHECK(names({"boxes", "--json"}) == "rig=current");
  CHECK(names({"boxes", "--json", "--box", "rig"}) == "rig=current");
  CHECK(names({"boxes", "--json", "--box", other.address()}) == other.address() + "=current");
  CHECK(names({"boxes", "--json", "--box", "local"}).empty());
}

TEST_CASE("an unknown box is named with those that are known, and nothing is made") {
  SharedBox box("rig");
  Machine alice;
  alice.make_repository();
  box.introduce(alice, "alice");
  for (const Words& words :
       {Words{"exec", "--box", "rgi", "--", "true"}, Words{"start", "--box", "rgi"},
        Words{"reset", "--box", "rgi"}, Words{"boxes", "--box", "rgi"}}) {
    auto ended = alice.run(words);
    CHECK(ended.status == 2);
    CHECK(has(ended.err, "no box `rgi`"));
    CHECK(has(ended.err, "local, rig"));
  }
  CHECK(test::sandbox_count(alice.run({"list", "--json"}).out) == 0);
  auto everywhere = alice.run({"list", "--all"});  // nor put on record
  CHECK_FALSE(has(everywhere.err, "rgi"));
  CHECK(alice.run({"stop", "--all"}).status == 0);
}
