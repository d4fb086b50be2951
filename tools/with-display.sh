#!/bin/sh
# Run a command where windows can be drawn: on the screen that is there, else on Xvfb.
# XVFB_SCREEN is the size of the latter, 1280x800 by default. Where Xvfb or the libraries that Qt
# loads are missing, Debian's packages are installed (as root).
set -eu

if [ "$(uname -s)" != Linux ] || [ -n "${DISPLAY:-}" ] || [ -n "${WAYLAND_DISPLAY:-}" ]; then
    exec "$@"
fi

packages="xvfb xauth libgl1 libegl1 libgl1-mesa-dri libdbus-1-3 libfontconfig1 fonts-dejavu-core
    libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
    libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 libxcb-xkb1"

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $packages; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing="$missing $package"
    done
elif ! command -v xvfb-run >/dev/null 2>&1; then
    echo "There is no screen and no Xvfb: install xvfb and OpenGL with this system's packages." >&2
    exit 2
fi

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "There is no screen, and as a user this cannot install:$missing. Run" \
            "'sudo apt-get install$missing' once." >&2
        exit 2
    fi
    echo "Installing Debian's packages for a virtual screen:$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2
    # shellcheck disable=SC2086 # a list of words is meant
    apt-get install -y -qq --no-install-recommends $missing >/dev/null
fi

exec xvfb-run -a -s "-screen 0 ${XVFB_SCREEN:-1280x800}x24" "$@"
