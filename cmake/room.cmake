# A room is one folder's sources as one library target.
#
# Sources are globbed, so a new file needs no line here: CONFIGURE_DEPENDS checks the globs at each
# build. A glob that finds nothing is a mistake, and an error.

if(SANDBOX_PCH)
  add_library(precompiled OBJECT cmake/precompiled.cc)
  target_link_libraries(precompiled PUBLIC asio Boost::json compile_options)
  target_precompile_headers(precompiled PRIVATE cmake/precompiled.h)
endif()

# room(<name> [PRECOMPILED] [LINK <target>...] [PRIVATE_LINK <target>...])
# PRIVATE_LINK is for libraries that this room hides: nobody else gets their headers by linking it.
function(room name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "PRECOMPILED" "" "LINK;PRIVATE_LINK")
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(NOT sources)
    message(FATAL_ERROR "The room ${name} has no sources in ${CMAKE_CURRENT_SOURCE_DIR}")
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ${arg_LINK} PRIVATE ${arg_PRIVATE_LINK} compile_options)
  if(arg_PRECOMPILED AND SANDBOX_PCH)
    target_precompile_headers(${name} REUSE_FROM precompiled)
  endif()
endfunction()

# program(<name> <target>...): the executable of this folder's main.cc.
function(program name)
  add_executable(${name} main.cc)
  target_link_libraries(${name} PRIVATE
    ${ARGN} compile_options sanitizer_options_of_programs)
endfunction()
