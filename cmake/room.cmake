# A room is one folder's sources as one library target. A folder without sources is still a target
# that passes on what it links, so that the others need not ask.
#
# Sources are globbed, not named: while the rooms are being filled, several people add files at
# once, and a list is one merge conflict per file. CONFIGURE_DEPENDS checks the globs at each build.

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
    add_library(${name} INTERFACE)
    target_link_libraries(${name} INTERFACE ${arg_LINK} ${arg_PRIVATE_LINK})
    return()
  endif()
  add_library(${name} STATIC ${sources})
  target_link_libraries(${name} PUBLIC ${arg_LINK} PRIVATE ${arg_PRIVATE_LINK} compile_options)
  if(arg_PRECOMPILED AND SANDBOX_PCH)
    target_precompile_headers(${name} REUSE_FROM precompiled)
  endif()
endfunction()

# program(<name> <target>...): the executable of this folder's main.cc, once there is one.
function(program name)
  file(GLOB main CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/main.cc)
  if(NOT main)
    return()
  endif()
  add_executable(${name} ${main})
  target_link_libraries(${name} PRIVATE
    ${ARGN} compile_options sanitizer_options_of_programs)
endfunction()
