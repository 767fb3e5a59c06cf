# What we build on, all of it from the system (scripts/setup installs it). Which room links what
# stands in that room's CMakeLists.txt.

find_package(Threads REQUIRED)
find_package(Boost 1.81 CONFIG REQUIRED COMPONENTS json program_options)
find_package(PkgConfig REQUIRED)
pkg_check_modules(LIBSSH REQUIRED IMPORTED_TARGET libssh>=0.10)
find_package(SQLite3 3.34 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(spdlog REQUIRED)

# yaml-cpp before 0.8 has no namespaced target.
if(NOT TARGET yaml-cpp::yaml-cpp)
  add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
endif()

# Asio's own code is compiled once, here, instead of in every file that includes it.
add_library(asio STATIC ${CMAKE_SOURCE_DIR}/cmake/asio.cc)
target_link_libraries(asio PUBLIC Boost::headers Threads::Threads PRIVATE compile_options)
target_compile_definitions(asio PUBLIC BOOST_ASIO_SEPARATE_COMPILATION BOOST_ASIO_NO_DEPRECATED)
