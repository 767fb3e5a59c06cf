#include "cli/output.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <thread>

#include "cli/trace.h"
#include "cli/waiting_line.h"
#include "protocol/os/fd.h"
#include "protocol/os/signals.h"
#include "tests/support/catch.h"

namespace {

struct Captured {
  Captured() : out(*protocol::os::make_pipe()), error(*protocol::os::make_pipe()) {}
  cli::Output output(cli::OutputOptions options) {
    options.out_fd = out.write.get();
    options.error_fd = error.write.get();
    return cli::Output(options);
  }
  static std::string all(protocol::os::Pipe& pipe) {
    pipe.write.reset();
    std::string text(65536, '\0');
    ssize_t got = ::read(pipe.read.get(), text.data(), text.size());
    text.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
    return text;
  }
  protocol::os::Pipe out, error;
};

}  // namespace

TEST_CASE("an error says what happened and what to do, on stderr") {
  Captured captured;
  captured.output({}).error(cli::UserError("box", "cannot reach it", "Turn it on."));
  CHECK(Captured::all(captured.error) == "Error: cannot reach it\nTurn it on.\n");
  CHECK(Captured::all(captured.out).empty());
}

TEST_CASE("no words of others on stderr reach the terminal as control bytes") {
  const std::string forged = "text\x1b]0;title\x07\r\x9b";
  const std::string shown = "text\\x1b]0;title\\x07\\r\\x9b";
  cli::OutputOptions options;
  options.stderr_is_terminal = true;
  auto written = [&](auto&& write) {
    Captured captured;
    auto output = captured.output(options);
    write(output);
    return Captured::all(captured.error);
  };
  CHECK(written([&](cli::Output& output) { output.note(forged); }) == shown + "\n");
  CHECK(written([&](cli::Output& output) { output.prompt(forged); }) == shown);
  CHECK(written([&](cli::Output& output) { output.trace(forged); }) == shown + "\n");
  CHECK(written([&](cli::Output& output) { output.transient(forged); }) == "\r\x1b[K" + shown);
  CHECK(written([&](cli::Output& output) { output.warn(forged); }) ==
        "\x1b[33mWarning:\x1b[0m " + shown + "\n");  // the colour is ours
  CHECK(written([&](cli::Output& output) {
          output.error(cli::UserError("box", forged, "First.\nThen " + forged));
        }) == "\x1b[31mError:\x1b[0m " + shown + "\nFirst.\nThen " + shown + "\n");
}

TEST_CASE("with --json an error is one object on stdout, and notes are silent") {
  Captured captured;
  cli::OutputOptions options;
  options.json = true;
  options.stderr_is_terminal = true;
  auto output = captured.output(options);
  output.note("a note");
  output.warn("a warning");
  output.transient("waiting");
  output.error(cli::UserError("lock", "busy", "Wait.", cli::kBusy));
  CHECK(Captured::all(captured.error).empty());
  std::string line = Captured::all(captured.out);
  auto error = boost::json::parse(line).at("Error");
  CHECK(error.at("Origin") == "lock");
  CHECK(error.at("Message") == "busy");
  CHECK(error.at("Next") == "Wait.");
  CHECK(error.at("Status") == 75);
  CHECK(std::count(line.begin(), line.end(), '\n') == 1);
}

TEST_CASE("with --json what was warned of stands in the answer, and in an error") {
  auto written = [](auto&& write) {
    Captured captured;
    cli::OutputOptions options;
    options.json = true;
    auto output = captured.output(options);
    write(output);
    return boost::json::parse(Captured::all(captured.out)).as_object();
  };
  auto answer = written([](cli::Output& output) {
    output.warn("the first");
    output.warn("not UTF-8: \xff");
    output.json_line(boost::json::object{{"Key", 1}});
  });
  CHECK(answer["Key"] == 1);
  CHECK(answer["Warnings"] == boost::json::array{"the first", "not UTF-8: \\xff"});
  auto error = written([](cli::Output& output) {
    output.warn("before it");
    output.error(cli::UserError("box", "cannot reach it"));
  });
  CHECK(error.contains("Error"));
  CHECK(error["Warnings"] == boost::json::array{"before it"});
  auto quiet = written([](cli::Output& output) { output.json_line(boost::json::object{}); });
  CHECK_FALSE(quiet.contains("Warnings"));
}

TEST_CASE("colours only where they are wanted") {
  cli::OutputOptions options;
  CHECK(cli::Output(options).paint("x", "31", false) == "x");
  options.stderr_is_terminal = true;
  CHECK(cli::Output(options).paint("x", "31", false) == "\x1b[31mx\x1b[0m");
  CHECK(cli::Output(options).paint("x", "31", true) == "x");
  options.no_color = true;
  CHECK(cli::Output(options).paint("x", "31", false) == "x");
  options.color = cli::ColorChoice::always;
  CHECK(cli::Output(options).paint("x", "31", true) == "\x1b[31mx\x1b[0m");
  options.no_color = false;
  options.color = cli::ColorChoice::never;
  CHECK(cli::Output(options).paint("x", "31", false) == "x");
}

TEST_CASE("a transient line is taken away before anything else is written") {
  Captured captured;
  cli::OutputOptions options;
  options.stderr_is_terminal = true;
  options.no_color = true;
  auto output = captured.output(options);
  output.transient("waiting");
  output.note("done");
  CHECK(Captured::all(captured.error) == "\r\x1b[Kwaiting\r\x1b[Kdone\n");
}

TEST_CASE("stdout that nobody reads is an error") {
  ::signal(SIGPIPE, SIG_IGN);
  Captured captured;
  captured.out.read.reset();
  auto output = captured.output({});
  CHECK_THROWS_AS(output.line("x"), cli::UserError);
  cli::OutputOptions options;
  options.stdout_open = false;
  CHECK_THROWS_AS(captured.output(options).line("x"), cli::UserError);
}

TEST_CASE("a line is cut to the terminal's width by characters, not bytes") {
  CHECK(cli::fit("abc", 3) == "abc");
  CHECK(cli::fit("abcd", 3) == "ab…");
  CHECK(cli::fit("äöüß", 3) == "äö…");
  CHECK(cli::fit("abc", 0).empty());
}

TEST_CASE("table columns line up and show no control bytes") {
  auto lines = cli::table({{"A", "B"}, {"long", "x\x1b[2J"}, {"ä", "y"}});
  CHECK(lines == std::vector<std::string>{"A     B", "long  x\\x1b[2J", "ä     y"});
}

TEST_CASE("text for JSON is always UTF-8") {
  CHECK(cli::json_text("plain") == "plain");
  CHECK(cli::json_text("a\xff") == "a\\xff");
}

TEST_CASE("the waiting line names place, holder, command and time") {
  protocol::wire::Queued queued;
  queued.position = 2;
  queued.holders = {{"alice", "exec", "make test", 10}};
  CHECK(cli::describe_queue(queued, std::chrono::seconds(2)) ==
        "waiting for the lock: place 2 in line; held by alice: exec `make test`, for 12s");
}

TEST_CASE("the waiting line says whose user lock it is, not that it is a command") {
  protocol::wire::Queued queued;
  queued.position = 1;
  queued.holders = {{"alice", "lock", "measuring", 10}, {"bob", "exec", "make", 1}};
  CHECK(cli::describe_queue(queued, {}) ==
        "waiting for the lock: place 1 in line; locked by alice, for 10s: measuring; and by bob: "
        "exec `make`, for 1s");
}

TEST_CASE("on a narrow terminal commands are shortened, and the time stays to be seen") {
  protocol::wire::Queued queued;
  queued.position = 1;
  queued.holders = {{"alice", "exec", std::string(100, 'x'), 10}};
  std::string wide = cli::describe_queue(queued, {});
  CHECK(wide.size() > 150);
  for (std::size_t columns : {100, 79}) {
    std::string line = cli::describe_queue(queued, {}, columns);
    CHECK(line.size() <= columns);
    CHECK(line.find("`, for 10s") != std::string::npos);
    CHECK(line.find("alice: exec `xxx") != std::string::npos);
  }
  CHECK(cli::describe_queue(queued, {}, 70) ==
        "waiting for the lock: place 1 in line; held by alice: exec, for 10s");
}

TEST_CASE("a reader of our stdout that has gone ends us without words, except with --json") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  protocol::os::ignore_sigpipe();
  ::close(ends[0]);
  cli::OutputOptions options;
  options.out_fd = ends[1];
  auto status = [&] {
    cli::Output output(options);
    try {
      output.line("x");
    } catch (const cli::UserError& error) {
      return std::pair(error.status, std::string(error.what()));
    }
    return std::pair(0, std::string());
  };
  CHECK(status() == std::pair(141, std::string()));
  options.json = true;
  CHECK(status() == std::pair(255, std::string("cannot write to stdout: Broken pipe")));
  ::close(ends[1]);
}

TEST_CASE("a stdout that does not wait is waited for") {
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
  cli::OutputOptions options;
  options.out_fd = ends[1];
  std::string text(1 << 20, 'x'), got;
  std::thread reader([&] {
    while (got.size() < text.size() + 1) {
      pollfd readable = {ends[0], POLLIN, 0};
      ::poll(&readable, 1, -1);
      char buffer[65536];
      ssize_t count = ::read(ends[0], buffer, sizeof buffer);
      if (count > 0) got.append(buffer, static_cast<std::size_t>(count));
    }
  });
  cli::Output(options).line(text);
  reader.join();
  CHECK((got == text + "\n"));
  ::close(ends[0]);
  ::close(ends[1]);
}

TEST_CASE("a trace shows directives but no values of variables") {
  protocol::wire::Exec exec;
  exec.argv = {"make"};
  exec.env = {{"TOKEN", "secret"}};
  std::string line = cli::trace_line('>', 3, exec);
  CHECK(line.rfind("> 3 exec ", 0) == 0);
  CHECK(line.find("TOKEN") != std::string::npos);
  CHECK(line.find("secret") == std::string::npos);
  CHECK(cli::trace_line('>', 1, protocol::wire::LockReleased{})
            .find("> 1 __rwx_sandbox_lock_released__") == 0);
}
