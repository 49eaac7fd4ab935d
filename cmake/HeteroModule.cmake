# What the sanitizers are to know about libraries that are not ours, for every test.
set(HETERO_TEST_ENV "")
if(HETERO_SANITIZE)
  # oneTBB loads its libraries in a way that AddressSanitizer refuses unless told. GCC 13 puts vectors of 64 bytes
  # at addresses of 32 in frames that are kept after a return (its bug 110027).
  set(HETERO_TEST_ENV
    ASAN_OPTIONS=detect_stack_use_after_return=0
    LSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/lsan.supp:print_suppressions=0
    TSAN_OPTIONS=suppressions=${PROJECT_SOURCE_DIR}/tests/tsan.supp
    UBSAN_OPTIONS=print_stacktrace=1
    TBB_ENABLE_SANITIZERS=1)
endif()

# hetero_module(name SOURCES a.cc ... [TESTS a_test.cc ...] [DEPS target ...])
# One folder of src/ is one static library hetero_<name>; its unit tests sit beside the code and
# become one test program <name>_test. Includes are written from src/: #include "gguf/file.h".
function(hetero_module name)
  cmake_parse_arguments(ARG "" "" "SOURCES;TESTS;DEPS" ${ARGN})
  add_library(hetero_${name} STATIC ${ARG_SOURCES})
  target_include_directories(hetero_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(hetero_${name} PUBLIC hetero_options fmt::fmt ${ARG_DEPS})
  if(HETERO_TESTS AND ARG_TESTS)
    hetero_test(${name}_test SOURCES ${ARG_TESTS} DEPS hetero_${name})
  endif()
endfunction()

# hetero_test(name SOURCES a_test.cc ... DEPS target ... [ENV VAR=value ...])
function(hetero_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;ENV" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  if(HETERO_SANITIZE STREQUAL thread)
    target_sources(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests/tsan_padding.cc)
  endif()
  target_link_libraries(${name} PRIVATE hetero_options ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_options(${name} PRIVATE $<$<CONFIG:Release>:-O1>)  # builds a quarter faster
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src ${PROJECT_SOURCE_DIR}/tests)
  # HETERO_CASES names the folder of shared test data; tests skip with a reason where it is absent.
  # An environment variable of the same name wins at run time.
  target_compile_definitions(${name} PRIVATE HETERO_CASES_DEFAULT="${HETERO_CASES_DEFAULT}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 ENVIRONMENT "${ARG_ENV};${HETERO_TEST_ENV}")
endfunction()
