// Catch2, whichever major version the system has: 2.13 (Debian 12) or 3 (Debian 13, Ubuntu 24.04).
// A test includes this and writes no main of its own.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
#else
#include <catch2/catch.hpp>
#endif
