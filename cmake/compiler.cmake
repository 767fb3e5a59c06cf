# How our own code is compiled. Nothing here reaches the headers of other people.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

# ccache compares what a precompiled header was made from only when told that it may: the defines
# are all on the command line, and __TIME__ is not used. `ccache KEY=VALUE` is too new (4.8).
find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER
      env CCACHE_SLOPPINESS=pch_defines,time_macros CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} ${CCACHE})
endif()

add_library(compile_options INTERFACE)
target_include_directories(compile_options INTERFACE ${CMAKE_SOURCE_DIR})

if(CCACHE AND SANDBOX_PCH AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # Without it the preprocessed text does not name the precompiled header, and ccache gives up.
  target_compile_options(compile_options INTERFACE -fpch-preprocess)
endif()

set(SANITIZER_LOGS ${CMAKE_BINARY_DIR}/sanitizer)
if(SANDBOX_SANITIZE)
  # A report is a failure: -fno-sanitize-recover ends the process, so that the test ends with it.
  target_compile_options(compile_options INTERFACE
    -fsanitize=${SANDBOX_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if(SANDBOX_SANITIZE MATCHES undefined)
    # A check before every access through a pointer: a third of the whole build. AddressSanitizer
    # reports an access through null all the same, and what comes off the wire is read byte by byte.
    target_compile_options(compile_options INTERFACE -fno-sanitize=null,alignment)
  endif()
  target_link_options(compile_options INTERFACE -fsanitize=${SANDBOX_SANITIZE})

  add_library(sanitizer_options OBJECT cmake/sanitizer_options.cc)
  add_library(sanitizer_options_of_programs OBJECT cmake/sanitizer_options.cc)
  target_compile_definitions(sanitizer_options_of_programs
    PRIVATE SANITIZER_LOG="${SANITIZER_LOGS}/report")
else()
  add_library(sanitizer_options INTERFACE)
  add_library(sanitizer_options_of_programs INTERFACE)
endif()

# Not -Wconversion: on byte arithmetic it asks for a cast at every shift, and casts hide what the
# sanitizers and the checks at the wire would find.
target_compile_options(compile_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wimplicit-fallthrough)
# A member that a designated initializer leaves out takes the default of its declaration: that is meant.
target_compile_options(compile_options INTERFACE -Wno-missing-field-initializers)
if(SANDBOX_WERROR)
  target_compile_options(compile_options INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # Every result<T> that a coroutine returns looks "maybe uninitialized" to gcc, which does not see
  # that boost::variant2 remembers which member there is. -Wuninitialized stays on.
  target_compile_options(compile_options INTERFACE -Wno-maybe-uninitialized)
  # The same for a coroutine frame that Asio allocates and frees with its own pair of operators.
  target_compile_options(compile_options INTERFACE -Wno-mismatched-new-delete)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # gcc 12 warns inside its own std::string for `"literal" + string` (PR105329, fixed in 13).
  target_compile_options(compile_options INTERFACE -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND (SANDBOX_SANITIZE OR NOT CMAKE_BUILD_TYPE STREQUAL Debug))
  # The same, up to 14, where the optimizer moves a string whose length it knows: it sees a copy of
  # the long kind of string beyond the short one. AddressSanitizer finds what these three are for.
  target_compile_options(compile_options INTERFACE
    -Wno-array-bounds -Wno-stringop-overflow -Wno-stringop-overread)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU AND SANDBOX_SANITIZE MATCHES thread)
  # Asio's handlers sit between fences, which gcc's ThreadSanitizer cannot see and says so per use.
  # What they order is ordered by a mutex or by being one thread as well.
  target_compile_options(compile_options INTERFACE -Wno-tsan)
endif()
