// libssh's objects as values that free themselves. For protocol/ssh alone.
#pragma once

#include <libssh/libssh.h>
#include <libssh/server.h>

#include <memory>

namespace protocol::ssh {

struct LibsshDeleter {
  void operator()(ssh_session_struct* session) const { ssh_free(session); }
  void operator()(ssh_event_struct* event) const { ssh_event_free(event); }
  void operator()(ssh_message_struct* message) const { ssh_message_free(message); }
  void operator()(ssh_bind_struct* bind) const { ssh_bind_free(bind); }
  void operator()(ssh_key_struct* key) const { ssh_key_free(key); }
  void operator()(char* text) const { ssh_string_free_char(text); }
};

using SessionHandle = std::unique_ptr<ssh_session_struct, LibsshDeleter>;
using EventHandle = std::unique_ptr<ssh_event_struct, LibsshDeleter>;
using MessageHandle = std::unique_ptr<ssh_message_struct, LibsshDeleter>;
using BindHandle = std::unique_ptr<ssh_bind_struct, LibsshDeleter>;
using KeyHandle = std::unique_ptr<ssh_key_struct, LibsshDeleter>;
using TextHandle = std::unique_ptr<char, LibsshDeleter>;

}  // namespace protocol::ssh
