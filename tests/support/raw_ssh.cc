#include "tests/support/raw_ssh.h"

#include <stdexcept>

namespace test {

namespace {

void check(bool good, ssh_session session, const char* what) {
  if (!good) throw std::runtime_error(std::string(what) + ": " + ssh_get_error(session));
}

}  // namespace

RawSsh::RawSsh(std::uint16_t port, const std::string& user) : session_(ssh_new()) {
  const bool no = false;
  const int number = port;
  const long seconds = 20;
  ssh_options_set(session_, SSH_OPTIONS_PROCESS_CONFIG, &no);
  ssh_options_set(session_, SSH_OPTIONS_HOST, "127.0.0.1");
  ssh_options_set(session_, SSH_OPTIONS_PORT, &number);
  ssh_options_set(session_, SSH_OPTIONS_USER, user.c_str());
  ssh_options_set(session_, SSH_OPTIONS_TIMEOUT, &seconds);
  const int yes = 1;
  ssh_options_set(session_, SSH_OPTIONS_NODELAY, &yes);
  if (ssh_connect(session_) != SSH_OK) {
    const std::string why = ssh_get_error(session_);
    ssh_free(session_);
    throw std::runtime_error("connect: " + why);
  }
}

RawSsh::~RawSsh() {
  ssh_disconnect(session_);
  ssh_free(session_);
}

int RawSsh::authenticate(const protocol::ssh::PrivateKey& key) {
  return ssh_userauth_publickey(session_, nullptr, key.handle());
}

void RawSsh::login(const protocol::ssh::PrivateKey& key) {
  check(authenticate(key) == SSH_AUTH_SUCCESS, session_, "login");
}

RawSsh::Channel& RawSsh::make() {
  ssh_channel handle = ssh_channel_new(session_);
  check(handle != nullptr, session_, "channel");
  Channel& channel = channels_.emplace_back();
  channel.handle = handle;
  auto& callbacks = channel.callbacks;
  callbacks.userdata = &channel.end;
  callbacks.channel_data_function = [](ssh_session, ssh_channel, void* data, std::uint32_t length,
                                       int is_error, void* user) {
    auto& end = *static_cast<End*>(user);
    (is_error != 0 ? end.err : end.out).append(static_cast<const char*>(data), length);
    return static_cast<int>(length);
  };
  callbacks.channel_exit_status_function = [](ssh_session, ssh_channel, int status, void* user) {
    static_cast<End*>(user)->status = status;
    static_cast<End*>(user)->order += "status ";
  };
  callbacks.channel_exit_signal_function = [](ssh_session, ssh_channel, const char* signal, int,
                                              const char*, const char*, void* user) {
    static_cast<End*>(user)->signal = signal;
    static_cast<End*>(user)->order += "signal ";
  };
  callbacks.channel_eof_function = [](ssh_session, ssh_channel, void* user) {
    static_cast<End*>(user)->order += "eof ";
  };
  callbacks.channel_close_function = [](ssh_session, ssh_channel, void* user) {
    static_cast<End*>(user)->order += "close";
    static_cast<End*>(user)->closed = true;
  };
  ssh_callbacks_init(&callbacks);
  ssh_set_channel_callbacks(handle, &callbacks);
  return channel;
}

RawSsh::Channel& RawSsh::open() {
  Channel& channel = make();
  check(ssh_channel_open_session(channel.handle) == SSH_OK, session_, "open");
  return channel;
}

RawSsh::Channel& RawSsh::exec(const std::string& command) {
  Channel& channel = open();
  check(ssh_channel_request_exec(channel.handle, command.c_str()) == SSH_OK, session_, "exec");
  return channel;
}

RawSsh::Channel* RawSsh::forward(const std::string& host, int port) {
  Channel& channel = make();
  if (ssh_channel_open_forward(channel.handle, host.c_str(), port, "127.0.0.1", 1) == SSH_OK) {
    return &channel;
  }
  ssh_remove_channel_callbacks(channel.handle, &channel.callbacks);
  ssh_channel_free(channel.handle);
  channels_.pop_back();
  return nullptr;
}

void RawSsh::until(const std::function<bool()>& condition) {
  ssh_event event = ssh_event_new();
  ssh_event_add_session(event, session_);
  int idle = 0;
  while (!condition() && connected() && idle < 200) {
    idle = ssh_event_dopoll(event, 100) == SSH_AGAIN ? idle + 1 : 0;
  }
  ssh_event_remove_session(event, session_);
  ssh_event_free(event);
  check(condition(), session_, "what was waited for did not happen");
}

RawSsh::End RawSsh::finish(Channel& channel) {
  until([&] { return channel.end.closed; });
  ssh_channel_close(channel.handle);
  return channel.end;
}

RawSsh::End RawSsh::run(const std::string& command) {
  Channel& channel = exec(command);
  ssh_channel_send_eof(channel.handle);
  return finish(channel);
}

}  // namespace test
