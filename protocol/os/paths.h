// Where files live, and how they are written so that a crash leaves the old or the new content.
// The environment is handed in: who owns it is main.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "protocol/wire/result.h"

namespace protocol::os {

using Environment = std::map<std::string, std::string>;
Environment environment();  // this process's, as it is now

// Absolute. $XDG_… where it is absolute (the specification ignores others), else beneath the home
// directory. Errc::not_found: no home either.
wire::result<std::filesystem::path> home_directory(const Environment& env);  // $HOME, else passwd's
wire::result<std::filesystem::path> state_home(const Environment& env);      // ~/.local/state
wire::result<std::filesystem::path> config_home(const Environment& env);     // ~/.config

std::string user_name();    // of the effective uid; "uid-1000" where it has none
std::string login_shell();  // from passwd; /bin/sh where it has none
std::string host_name();
std::string machine_id();  // /etc/machine-id, or what the system has instead; empty: none
std::string boot_id();     // differs after each start of the machine; empty: not known
std::string random_hex(std::size_t digits);  // from the system's generator

// Makes the directory, and those above it, with mode 0700. One that is there has to be a directory
// (no link) of ours that nobody else may write to (Errc::denied); what others may read of it is
// taken from them.
wire::result<void> make_private_directory(const std::filesystem::path& directory);

// Replaces the file in one step: temporary file beside it, fsync, rename, fsync of the directory.
// After an error the old content stands. Errc::no_space, denied, not_found, io.
wire::result<void> write_file(const std::filesystem::path& file, std::string_view bytes,
                              mode_t mode = 0600);
// The whole file. Errc::not_found, denied, too_large above `limit`, refused when it is no regular
// file.
wire::result<std::string> read_file(const std::filesystem::path& file, std::size_t limit);
wire::result<void> sync_directory(const std::filesystem::path& directory);

// Tests only: asked before each system call of write_file ("open", "write", "fsync", "rename",
// "fsync directory"); an errno value makes that call fail with it, 0 lets it happen.
void set_write_fault(std::function<int(std::string_view call)> fault);

}  // namespace protocol::os
