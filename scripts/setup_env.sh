#!/bin/sh
# setup_env.sh VENV [GROUP ...]
# Makes the virtual environment VENV with this project (editable) and the given
# dependency groups of pyproject.toml. Does nothing when VENV is up to date.
#
#   PYTHON=python3.12             the interpreter to start from
#   TORCH_SPEC='torch==2.15.0'    another torch than constraints.txt says
#   TORCH_INDEX=URL               an index of torch wheels, for example for one CUDA version
#   NO_UV=1                       install with pip alone, which is slower
#
# Which torch: the one already in VENV; else TORCH_SPEC or TORCH_INDEX; else the one
# that PYTHON can import (somebody chose it, perhaps for a GPU); else a wheel from the
# folders in pip's configuration; else pytorch.org's build for this GPU or CPU; else PyPI's.
set -eu
cd "$(dirname "$0")/.."
. scripts/messages.sh

[ $# -ge 1 ] || die "usage: scripts/setup_env.sh VENV [GROUP ...]"
VENV=$1
shift
PY=$(find_python)

STAMP="$* | $(cat pyproject.toml constraints.txt scripts/oracles.txt scripts/setup_env.sh | cksum)"
STAMP="$STAMP | $PWD | $("$PY" -c 'import sys; print(sys.version)') | ${TORCH_SPEC:-} ${TORCH_INDEX:-}"
NAME=stamp-$(echo base "$@" | tr ' ' '-')
VPY=$VENV/bin/python
if [ -f "$VENV/$NAME" ] && [ "$(cat "$VENV/$NAME")" = "$STAMP" ] && "$VPY" -c '' 2>/dev/null; then
    exit 0
fi

say "environment $VENV, $("$PY" --version)"
if ! "$VPY" -c '' 2>/dev/null; then # none yet, or its Python has gone
    "$PY" -m venv --clear "$VENV" || die "could not make $VENV with $PY -m venv"
fi
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT

# uv reads neither pip's configuration nor its PIP_ variables: hand on what matters.
"$VPY" -m pip config list 2>/dev/null | sed 's/\\n/ /g' >"$WORK/pip.txt" # lists: one line
pip_setting() { sed -n -E "s/^(:env:|global|install)\.$1='(.*)'\$/\2/p" "$WORK/pip.txt" | tail -n 1; }
LINKS=""
for folder in $(pip_setting find-links); do LINKS="$LINKS --find-links $folder"; done
index=$(pip_setting index-url)
[ -z "$index" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$index}"
certificates=$(pip_setting cert)
[ -z "$certificates" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$certificates}"
export PIP_DISABLE_PIP_VERSION_CHECK=1

if [ -z "${NO_UV:-}" ] && "$VPY" -m pip install -q uv 2>"$WORK/uv.log"; then UV=yes; else UV=""; fi
uv_install() { "$VPY" -m uv pip install -q --python "$VPY" $LINKS "$@"; }
pip_install() { "$VPY" -m pip install -q $LINKS "$@"; }

grep -v '^torch==' constraints.txt >"$WORK/constraints.txt"
: >"$WORK/overrides.txt"
if "$VPY" -c 'import torch' 2>/dev/null; then
    say "torch: the one already in $VENV"
elif [ -n "${TORCH_SPEC:-}${TORCH_INDEX:-}" ]; then
    say "torch: ${TORCH_SPEC:-torch} ${TORCH_INDEX:+from $TORCH_INDEX}"
    "$VPY" -m pip install -q ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "${TORCH_SPEC:-torch}" ||
        die "the torch that you asked for cannot be installed (messages above)"
elif HOME_OF_TORCH=$("$PY" scripts/find_torch.py); then
    say "torch: the one of $PY, in $HOME_OF_TORCH"
    SITE=$("$VPY" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$HOME_OF_TORCH" >"$SITE/zz_torch_of_starting_python.pth" # after our own packages
    # uv does not look there, and would install a second torch
    echo 'torch ; sys_platform == "never"' >"$WORK/overrides.txt"
else
    cp constraints.txt "$WORK/constraints.txt"
    if pip_install --no-index --no-deps -c constraints.txt torch 2>/dev/null; then
        say "torch: from a wheel folder of pip's configuration"
    elif [ -n "$UV" ] && uv_install --torch-backend=auto -c constraints.txt torch 2>/dev/null; then
        say "torch: from pytorch.org, for this machine's GPU or CPU"
    else
        say "torch: from PyPI"
    fi
fi

GROUPS_WANTED=""
for group in "$@"; do GROUPS_WANTED="$GROUPS_WANTED --group $group"; done
ORACLES=""
case " $* " in *" test "* | *" gui "*) ORACLES=yes ;; esac

install_all() { # install_all INSTALLER [OPTION ...]
    "$@" -c "$WORK/constraints.txt" -e . $GROUPS_WANTED || return
    [ -z "$ORACLES" ] || "$1" --no-deps -r scripts/oracles.txt
}
say "napari_sam and what it needs${*:+, with the groups: $*}"
if [ -n "$UV" ] && install_all uv_install --overrides "$WORK/overrides.txt"; then
    :
else
    say "using pip, which is slower${UV:+, since uv failed (messages above)}"
    pip_install --upgrade "pip>=25.1" || die_network # older ones know no --group
    install_all pip_install || die_network
fi

"$VPY" -c 'import torch; print("[setup] torch", torch.__version__, "cuda" if torch.cuda.is_available() else "cpu")'
echo "$STAMP" >"$VENV/$NAME"
