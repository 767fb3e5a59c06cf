// The sanitizers' defaults, linked into every executable of a sanitized build. In the code and not
// in the environment, because a supervisor gives its children an environment made from nothing.
//
// The two programs write their reports to files (SANITIZER_LOG): an agent's stderr may have no
// reader. tests/CMakeLists.txt fails when there is such a file after the tests.
#ifdef SANITIZER_LOG
#define LOG_PATH "log_path=" SANITIZER_LOG ":"
#else
#define LOG_PATH ""
#endif

extern "C" {

const char* __asan_default_options();
const char* __asan_default_options() {
  return LOG_PATH "detect_stack_use_after_return=1:strict_string_checks=1";
}

const char* __ubsan_default_options();
const char* __ubsan_default_options() { return LOG_PATH "print_stacktrace=1"; }

const char* __tsan_default_options();
const char* __tsan_default_options() { return LOG_PATH "halt_on_error=1:second_deadlock_stack=1"; }

}  // extern "C"
