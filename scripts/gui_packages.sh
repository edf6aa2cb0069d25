#!/bin/sh
# Debian and Ubuntu: what Qt and napari need at run time, and Xvfb for tests without a
# screen. Installs what is missing when run as root; else prints the one command to type.
set -eu
PACKAGES="libfontconfig1 libegl1 libgl1 libglib2.0-0 libdbus-1-3 libxkbcommon0
  libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1
  libxcb-render-util0 libxcb-shape0 libxcb-xkb1 xvfb xauth"
INSTALL="apt-get install -y --no-install-recommends --no-upgrade -o DPkg::Lock::Timeout=300"

command -v apt-get >/dev/null || exit 0 # another system: run_checks.py says what is missing

# A simulated run resolves virtual packages too; it fails when no package list was fetched.
if plan=$($INSTALL --simulate $PACKAGES 2>/dev/null) && ! echo "$plan" | grep -q '^Inst '; then
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "[setup] GUI tests need system packages. Once, type:  sudo sh scripts/gui_packages.sh"
    exit 0
fi
echo "[setup] system packages for GUI tests"
export DEBIAN_FRONTEND=noninteractive
LOG=$(mktemp)
if ! { apt-get update -qq && $INSTALL -qq $PACKAGES; } >"$LOG" 2>&1; then
    cat "$LOG" >&2
    echo "[setup] WARNING: apt-get failed (messages above); GUI tests may not run" >&2
fi
rm -f "$LOG"
