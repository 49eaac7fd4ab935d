#!/usr/bin/env bash
# ./test.sh [CTEST ARGUMENTS]: installs what is missing, builds with tests, runs them.
cd "$(dirname "$0")"
source scripts/setup.sh

install_packages "${BUILD_PACKAGES[@]}" "${RUN_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
find_cmake
install_python requirements.txt
[ "$(uname -m)" = x86_64 ] && install_python requirements-opencl.txt  # a second OpenCL to test with
use_local_opencl
configure_and_build ON
get_model

HETERO_MODEL="$PWD/$MODEL" exec $CTEST --test-dir build/release --output-on-failure -j "$(nproc)" "$@"
