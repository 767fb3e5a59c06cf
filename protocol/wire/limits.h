// Every number that bounds what a peer may send. Checked before anything is allocated for it.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace protocol::wire {

inline constexpr std::uint32_t kProtocolVersion = 1;

// Frames.
inline constexpr std::size_t kMaxBulkBytes = 32 * 1024;       // payload of one bulk frame
inline constexpr std::size_t kMaxControlBytes = 1024 * 1024;  // payload of one control frame
inline constexpr std::size_t kMaxQueuedControlBytes =
    4 * 1024 * 1024;  // unread control of one peer

// Messages.
inline constexpr std::size_t kMaxJsonDepth = 8;  // of a message's members
inline constexpr std::size_t kMaxListedBytes =
    128 * 1024;  // of what a sync left out, in one message

// Credit in bytes that a stream has when its request begins, and up to which a receiver tops it up.
inline constexpr std::uint32_t kInitialPackCredit = 64 * 1024;
inline constexpr std::uint32_t kInitialStreamCredit = 64 * 1024;
inline constexpr std::uint32_t kFullCredit = 4 * 1024 * 1024;

// Requests.
inline constexpr std::size_t kMaxArguments = 64 * 1024;
inline constexpr std::size_t kMaxNameBytes = 255;   // sandbox ids, user names, verbs
inline constexpr std::size_t kMaxTextBytes = 4096;  // command texts shown to others, reasons
inline constexpr std::uint64_t kMaxPackBytes = 8ull * 1024 * 1024 * 1024;

// Locks.
inline constexpr std::chrono::seconds kDefaultLockTtl{1800};
inline constexpr std::chrono::seconds kCiWait{1800};
inline constexpr std::size_t kMaxQueue = 256;  // requests in line on one box

}  // namespace protocol::wire
