#include "agent/options.h"

#include "tests/support/catch.h"

using agent::parse_options;

namespace {

protocol::wire::result<agent::Command> parse(std::vector<std::string> words) {
  return parse_options(words);
}

bool refused_naming(std::vector<std::string> words, const std::string& text) {
  auto parsed = parse(std::move(words));
  REQUIRE(!parsed);
  UNSCOPED_INFO(parsed.error().what);
  return parsed.error().code == protocol::wire::Errc::bad_input &&
         parsed.error().what.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("serve takes its options with a space or an equals sign") {
  auto parsed = parse({"serve", "--listen", "0.0.0.0:4711", "--state=/var/lib/x", "--name", "rig",
                       "--slots", "3", "--idle-exit=60", "--trust-claimed-users"});
  REQUIRE(parsed);
  auto serve = std::get<agent::ServeOptions>(*parsed);
  CHECK(serve.host == "0.0.0.0");
  CHECK(serve.port == 4711);
  CHECK(serve.state == "/var/lib/x");
  CHECK(serve.name == "rig");
  CHECK(serve.slots == 3);
  CHECK(serve.idle_exit == std::chrono::seconds(60));
  CHECK(serve.trust_claimed_users);
}

TEST_CASE("serve listens on a free loopback port with one slot unless told otherwise") {
  auto parsed = parse({"serve", "--state", "d", "--name", "n"});
  REQUIRE(parsed);
  auto serve = std::get<agent::ServeOptions>(*parsed);
  CHECK(serve.host == "127.0.0.1");
  CHECK(serve.port == 0);
  CHECK(serve.slots == 1);
  CHECK(!serve.idle_exit);
  CHECK(!serve.trust_claimed_users);
  CHECK(!serve.isolation);
  CHECK(!serve.trust_commands);
  CHECK(serve.exposed.empty());
}

TEST_CASE("probe tries with what serve would show") {
  auto parsed = parse({"probe", "--expose", "/opt/sdk"});
  REQUIRE(parsed);
  CHECK(std::get<agent::ProbeOptions>(*parsed).exposed ==
        std::vector<std::filesystem::path>{"/opt/sdk"});
  CHECK(refused_naming({"probe", "--expose", "sdk"}, "absolute"));
  CHECK(refused_naming({"probe", "--state", "d"}, "--state"));
}

TEST_CASE("serve is told what sandboxes run in, and what of the box they are given") {
  auto parsed = parse({"serve", "--state", "d", "--name", "n", "--isolation", "bwrap",
                       "--trust-commands", "--expose", "/opt/sdk", "--expose=/dev/ttyUSB0"});
  REQUIRE(parsed);
  auto serve = std::get<agent::ServeOptions>(*parsed);
  CHECK(serve.isolation == agent::IsolationMode::bwrap);
  CHECK(serve.trust_commands);
  CHECK(serve.exposed == std::vector<std::filesystem::path>{"/opt/sdk", "/dev/ttyUSB0"});
  for (const char* mode : {"auto", "none"})
    CHECK(parse({"serve", "--state", "d", "--name", "n", "--isolation", mode}));
}

TEST_CASE(
    "an address is a host and a port, an IPv6 host stands in brackets, a port alone is loopback") {
  auto listen = [](std::string text) {
    auto parsed = parse({"serve", "--state", "d", "--name", "n", "--listen", std::move(text)});
    REQUIRE(parsed);
    auto serve = std::get<agent::ServeOptions>(*parsed);
    return serve.host + " " + std::to_string(serve.port);
  };
  CHECK(listen("[::1]:22") == "::1 22");
  CHECK(listen(":22") == "127.0.0.1 22");
  CHECK(listen("65535") == "127.0.0.1 65535");
  CHECK(listen("box.example:0") == "box.example 0");
}

TEST_CASE("what is wrong with the command line is named") {
  std::vector<std::string> serve{"serve", "--state", "d", "--name", "n"};
  auto with = [&](std::vector<std::string> more) {
    auto words = serve;
    words.insert(words.end(), more.begin(), more.end());
    return words;
  };
  CHECK(refused_naming({}, "a command is needed"));
  CHECK(refused_naming({"dance"}, "dance"));
  CHECK(refused_naming({"serve"}, "--state"));
  CHECK(refused_naming({"serve", "--state", "d"}, "--name"));
  CHECK(refused_naming(with({"--listen", "box:70000"}), "box:70000"));
  CHECK(refused_naming(with({"--listen", "box:"}), "HOST:PORT"));
  CHECK(refused_naming(with({"--listen", "::1:22"}), "IPv6"));
  CHECK(refused_naming(with({"--slots", "-1"}), "-1"));
  CHECK(refused_naming(with({"--slots", "many"}), "many"));
  CHECK(refused_naming(with({"--idle-exit", "0"}), "--idle-exit"));
  CHECK(refused_naming(with({"--idle-exit"}), "needs a value"));
  CHECK(refused_naming(with({"--trust-claimed-users=yes"}), "takes no value"));
  CHECK(refused_naming(with({"extra"}), "extra"));
  CHECK(refused_naming(with({"--isolation", "docker"}), "docker"));
  CHECK(refused_naming(with({"--expose", "sdk"}), "absolute"));
  CHECK(refused_naming({"supervise", "--directory", "d", "--info-fd", "-1"}, "--info-fd"));
  CHECK(refused_naming({"serve", "--state", "d", "--name", "a\nb"}, "--name"));
  CHECK(refused_naming({"authorize", "--state", "d"}, "a key"));
  CHECK(refused_naming({"authorize", "--state", "d", "k", "l"}, "one key"));
  CHECK(refused_naming({"supervise"}, "--directory"));
  CHECK(refused_naming({"version", "x"}, "no arguments"));
}

TEST_CASE("help is asked for anywhere and fits a screen of 80 columns and 40 lines") {
  auto parsed = parse({"serve", "--help"});
  REQUIRE(parsed);
  CHECK(std::holds_alternative<agent::HelpOptions>(*parsed));
  std::string text(agent::help_text());
  std::size_t lines = 0, start = 0;
  for (std::size_t end; (end = text.find('\n', start)) != std::string::npos; start = end + 1) {
    ++lines;
    INFO(text.substr(start, end - start));
    CHECK(end - start <= 80);
  }
  CHECK(lines <= 40);
}

TEST_CASE("authorize and supervise say where") {
  auto authorize = parse({"authorize", "--state", "d", "--user", "ann", "ssh-ed25519 AAAA me"});
  REQUIRE(authorize);
  CHECK(std::get<agent::AuthorizeOptions>(*authorize).user == "ann");
  CHECK(std::get<agent::AuthorizeOptions>(*authorize).key == "ssh-ed25519 AAAA me");
  auto supervise = parse({"supervise", "--directory", "/x"});
  REQUIRE(supervise);
  CHECK(std::get<agent::SuperviseOptions>(*supervise).directory == "/x");
}

TEST_CASE("bridge takes the agent's state directory, and nothing else") {
  auto parsed = parse({"bridge", "--state", "/var/lib/x"});
  REQUIRE(parsed);
  CHECK(std::get<agent::BridgeOptions>(*parsed).state == "/var/lib/x");
  CHECK(refused_naming({"bridge"}, "--state"));
  CHECK(refused_naming({"bridge", "--state", "d", "word"}, "word"));
}
