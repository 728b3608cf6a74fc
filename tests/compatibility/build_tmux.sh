#!/usr/bin/env bash
# Gets versions of tmux for the compatibility tests: ~/.cache/tmux-orchestrator/tmux/VERSION/tmux for each.
#
#   build_tmux.sh bullseye sid                       releases of Debian, from the mirror that apt is set up with
#   build_tmux.sh trixie-backports=3.6b-1~bpo13+1    one of several versions that a release has
#   build_tmux.sh ~/tmux-3.0a.tar.gz ~/src/tmux      a release's archive, or a folder with its source
#
# A release's source package is built; where the mirror has only the binary one, that is unpacked with its libraries.
# apt's own lists and settings stay as they are, and nothing is installed. Needs on Debian:
#   apt-get install autoconf automake bison dpkg-dev gcc libevent-dev libncurses-dev make pkg-config
set -euo pipefail

readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/tmux-orchestrator/tmux"

die() {
    echo "build_tmux.sh: $*" >&2
    exit 1
}

# apt as if it knew only one release, and as if nothing was installed.
prepare_apt() {
    local release="$1" folder="$2" mirror
    # shellcheck disable=SC2016 # apt fills it in
    mirror="$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | sed -n 1p)"
    [[ -n $mirror ]] || die "apt has no mirror of Debian: apt-get update, or give an archive"
    mkdir -p "$folder/lists/partial" "$folder/archives/partial"
    # What is backported takes its libraries from the release itself.
    printf '%s\n' "deb $mirror ${release%-backports} main" "deb $mirror $release main" \
        "deb-src $mirror $release main" | sort -u > "$folder/sources.list"
    : > "$folder/status"
    apt=(
        apt-get --quiet=2 --yes -o "Dir::State::Lists=$folder/lists" -o "Dir::State::Status=$folder/status"
        -o "Dir::Cache=$folder" -o "Dir::Etc::SourceList=$folder/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o APT::Sandbox::User=root
    )
    "${apt[@]}" update
}

take_release() {
    local release="${1%%=*}" folder="$2" package=tmux
    [[ $1 != *=* ]] || package="tmux=${1#*=}"
    prepare_apt "$release" "$folder/apt"
    if (cd "$folder" && "${apt[@]}" --download-only source "$package" 2> apt.log); then
        dpkg-source --no-check --extract "$folder"/*.dsc "$folder/source" > /dev/null
        build "$folder/source"
    else
        "${apt[@]}" --download-only --no-install-recommends install "$package"
        unpack "$folder/apt/archives" "$folder/root"
    fi
}

take_source() {
    if [[ -d $1 ]]; then
        cp -R "$1" "$2/source"
    else
        mkdir "$2/source"
        tar -xf "$1" -C "$2/source" --strip-components=1
    fi
    build "$2/source"
}

build() {
    (
        cd "$1" && { [[ -x configure ]] || sh autogen.sh; } && ./configure && make -j "$(nproc)"
    ) > "$1/build.log" 2>&1 || die "it does not build: $(tail -n 5 "$1/build.log")"
    keep "$1/tmux"
}

# Programs of another release need its libraries and its loader; what runs in their windows does not.
unpack() {
    local packages="$1" root="$2" package libraries
    libraries="usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH)"
    for package in "$packages"/*.deb; do
        dpkg-deb --extract "$package" "$root"
    done
    # shellcheck disable=SC2016 # the script expands it
    printf '%s\n' '#!/bin/sh' 'root="$(dirname "$(readlink -f "$0")")/root"' \
        "exec \"\$root/$libraries\"/ld-linux*.so.* --library-path \"\$root/$libraries\" \"\$root/usr/bin/tmux\" \"\$@\"" \
        > "$root/../tmux"
    chmod +x "$root/../tmux"
    keep "$root/../tmux" "$root"
}

keep() {
    local version
    version="$("$1" -V)"
    version="${version#tmux }"
    rm -rf "${CACHE:?}/$version"
    mkdir -p "$CACHE/$version"
    mv "$@" "$CACHE/$version"
    echo "$CACHE/$version/tmux"
}

(($#)) || die "name a release of Debian, an archive or a folder (see the head of this file)"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
for what in "$@"; do
    mkdir "$folder/work"
    if [[ -e $what ]]; then take_source "$what" "$folder/work"; else take_release "$what" "$folder/work"; fi
    rm -rf "$folder/work"
done
