#!/usr/bin/env bash
# ./demo.sh [PROMPT]: installs what is missing, builds, gets the default model, and answers the
# prompt on GPU and NPU together. On machines without them, stand-ins on the CPU play both.
cd "$(dirname "$0")"
source scripts/setup.sh

install_packages "${BUILD_PACKAGES[@]}" "${RUN_PACKAGES[@]}"
find_cmake
install_python requirements.txt
use_local_opencl
[ -x build/release/hetero ] && [ -z "$(find CMakeLists.txt cmake src -newer build/release/hetero -type f -print -quit)" ] ||
  configure_and_build OFF
get_model

exec build/release/hetero run -m "$MODEL" --strategy tensor --temp 0 -n 96 \
  -p "${1:-Explain in two sentences why a phone has a GPU and an NPU beside its CPU.}"
