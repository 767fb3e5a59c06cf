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
inline constexpr std::size_t kMaxListItems = 64 * 1024;
inline constexpr std::size_t kMaxListedBytes =
    128 * 1024;  // of what a sync left out, in one message

inline constexpr std::size_t kMaxNameBytes = 255;   // sandbox ids, user names, verbs
inline constexpr std::size_t kMaxTextBytes = 4096;  // command texts shown to others, reasons

// Streams.
inline constexpr std::uint64_t kMaxPackBytes = 8ull * 1024 * 1024 * 1024;
// Credit in bytes that a stream has when its request begins, and up to which a receiver tops it up.
inline constexpr std::uint32_t kInitialPackCredit = 64 * 1024;
inline constexpr std::uint32_t kInitialStreamCredit = 64 * 1024;
inline constexpr std::uint32_t kFullCredit = 4 * 1024 * 1024;

// One connection, and one session.
inline constexpr int kMaxChannels = 64;                  // of a connection
inline constexpr std::size_t kMaxRequests = 4096;        // of a session
inline constexpr std::size_t kMaxStepsAhead = 64;        // unanswered
inline constexpr std::size_t kMaxStatusRequests = 64;    // unanswered
inline constexpr std::size_t kMaxKills = 64;             // unanswered
inline constexpr std::size_t kMaxAttached = 64;          // jobs whose output is shown at once
inline constexpr std::size_t kMaxAttachRequests = 4096;  // of a session
inline constexpr std::size_t kMaxUserAttached = 128;     // of all sessions of one user

// One box.
inline constexpr std::size_t kMaxSandboxes = 1000;  // of one user
inline constexpr std::size_t kMaxQueue = 256;       // requests in line

// Locks.
inline constexpr std::chrono::seconds kDefaultLockTtl{1800};
inline constexpr std::chrono::seconds kCiWait{1800};

}  // namespace protocol::wire
