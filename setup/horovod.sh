#!/usr/bin/env bash
# Install Horovod, patched for today's torch, into .venv; build its wheel first unless the cache has it.
# usage: setup/horovod.sh STAMP    (touches STAMP once Horovod is in; a machine without a C++ compiler goes without)
set -euo pipefail

stamp=$1
python=$PWD/.venv/bin/python
log=$PWD/.venv/horovod.log
cache=${SPARKREC_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sparkrec}
mkdir -p "$cache"

# The wheel links against torch's C++ libraries: one for each recipe, torch, Python and platform.
version=$(sed -nE 's/^horovod==([^ ]+).*/\1/p' setup/horovod.lock)
recipe=$(cat setup/horovod* | sha256sum | cut -c1-8)
target=$("$python" -c 'import sys, sysconfig, torch
print("torch", torch.__version__, sys.implementation.cache_tag, sysconfig.get_platform(), sep="-")')
wheels=$cache/horovod-$version-$recipe-$target

has_compiler() {
    local compiler
    for compiler in ${CXX:+"$CXX"} c++ g++ clang++; do
        if command -v "$compiler" >/dev/null; then return; fi
    done
    return 1
}

build() {
    "$python" -m pip download --require-hashes --no-deps --no-build-isolation --no-binary :all: \
        --dest "$work" -r setup/horovod.lock
    mkdir "$work/source" "$work/wheels"
    tar -xzf "$work/horovod-$version.tar.gz" -C "$work/source" --strip-components 1
    # The ceiling keeps git from patching a repository that the cache may lie in.
    GIT_CEILING_DIRECTORIES=$work git -C "$work/source" apply "$PWD/setup/horovod-cxx20.patch"
    env PATH="$PWD/.venv/bin:$PATH" MAKEFLAGS="-j$(nproc)" CMAKE_POLICY_VERSION_MINIMUM=3.5 \
        HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
        HOROVOD_WITHOUT_MPI=1 HOROVOD_WITH_GLOO=1 \
        "$python" -m pip wheel --no-build-isolation --no-deps --no-cache-dir \
        --wheel-dir "$work/wheels" "$work/source"
}

install() {
    "$python" -m pip install --no-deps --no-index --force-reinstall "$1"/horovod-*.whl
    "$python" -c 'import horovod.spark, horovod.torch as hvd; assert hvd.gloo_built()'
}

remove() {
    "$python" -m pip uninstall --quiet --yes horovod 2>/dev/null
}

if [ ! -d "$wheels" ] && ! has_compiler; then
    remove
    echo "No C++ compiler: going on without Horovod, training will use another launcher (install g++ and run make setup to add it)"
    exit
fi

work=$(mktemp -d "$cache/build.XXXXXX")
on_exit() {
    local status=$?
    rm -rf "$work"
    if ((status)); then
        remove
        { grep -E -m 5 -A 5 "CMake Error|error:" "$log" || tail -n 20 "$log"; } >&3
        echo "Horovod was not installed, and nothing of it was kept: the whole story is in ${log#"$PWD"/}" >&3
    fi
}
trap on_exit EXIT
exec 3>&2 4>&1 >"$log" 2>&1

if [ -d "$wheels" ]; then
    install "$wheels"
else
    echo "Building Horovod $version for $target, once: about three minutes on two cores" >&4
    build
    install "$work/wheels"
    # In one move, so that the cache holds a working wheel or none; another build may have been first.
    mv -T "$work/wheels" "$wheels" || [ -d "$wheels" ]
fi
touch "$stamp"
