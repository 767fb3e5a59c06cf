# catch_tests(<target> PREFIX <prefix> PROPERTIES <name> <value>...)
# Makes a ctest test of each test case of a Catch2 executable, after it is linked. In place of
# Catch2's own catch_discover_tests: that of version 2 cuts a name at each `;`, and takes a name that
# then matches nothing for success.

if(CMAKE_SCRIPT_MODE_FILE)
  # What runs after linking: TARGET, CATCH, PREFIX, PROPERTIES and OUTPUT are given, as is RUNNER.
  if(CATCH VERSION_LESS 3)
    set(list --list-test-names-only) # its status is the number of tests
    set(options "-w NoTests")
  else()
    set(list --list-tests --verbosity quiet)
    set(options "")
  endif()
  execute_process(COMMAND ${RUNNER} ${TARGET} ${list}
    OUTPUT_VARIABLE names ERROR_VARIABLE complaint RESULT_VARIABLE status)
  if(NOT status MATCHES "^[0-9]+$" OR NOT names)
    message(FATAL_ERROR "${TARGET} cannot list its tests (${status}): ${complaint}")
  endif()

  # A CMake list has its own ideas about these three characters.
  string(ASCII 1 semicolon)
  string(ASCII 2 open)
  string(ASCII 3 close)
  string(REPLACE ";" ${semicolon} names "${names}")
  string(REPLACE "[" ${open} names "${names}")
  string(REPLACE "]" ${close} names "${names}")
  string(REGEX MATCHALL "[^\n]+" names "${names}")

  string(REPLACE ";" " " properties "${PROPERTIES}")
  set(tests "")
  foreach(name IN LISTS names)
    string(REPLACE ${semicolon} ";" name "${name}")
    string(REPLACE ${open} "[" name "${name}")
    string(REPLACE ${close} "]" name "${name}")
    string(REGEX REPLACE "([],[\\])" "\\\\\\1" pattern "${name}")
    set(test "[==[${PREFIX}${name}]==]")
    string(APPEND tests
      "add_test(${test} ${RUNNER} [==[${TARGET}]==] [==[${pattern}]==] ${options})\n"
      "set_tests_properties(${test} PROPERTIES ${properties})\n")
  endforeach()
  file(WRITE ${OUTPUT} "${tests}")
  return()
endif()

set(CATCH_TESTS_SCRIPT ${CMAKE_CURRENT_LIST_FILE})

function(catch_tests target)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "PREFIX" "PROPERTIES")
  set(output ${CMAKE_CURRENT_BINARY_DIR}/${target}.tests.cmake)
  add_custom_command(TARGET ${target} POST_BUILD BYPRODUCTS ${output} VERBATIM
    COMMAND ${CMAKE_COMMAND} -D TARGET=$<TARGET_FILE:${target}> -D CATCH=${Catch2_VERSION}
      -D "RUNNER=${TEST_RUNNER}" -D "PREFIX=${arg_PREFIX}" -D "PROPERTIES=${arg_PROPERTIES}"
      -D OUTPUT=${output} -P ${CATCH_TESTS_SCRIPT})
  # Until it is built it is one test, which fails.
  set(include ${CMAKE_CURRENT_BINARY_DIR}/${target}.include.cmake)
  file(WRITE ${include} "
if(EXISTS [==[${output}]==])
  include([==[${output}]==])
else()
  add_test([==[${arg_PREFIX} not built]==] [==[${target}]==])
endif()
")
  set_property(DIRECTORY APPEND PROPERTY TEST_INCLUDE_FILES ${include})
endfunction()
