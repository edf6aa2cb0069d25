# Sourced by demo, check and setup_env.sh: what they say, and the Python they start from.

say() { echo "[setup] $*"; }

die() {
    echo "[setup] ERROR: $*" >&2
    exit 1
}

die_network() {
    die "packages could not be installed (messages above). Needed: a way to PyPI or to a
        mirror of it (pip's index-url), and about 3 GB of free disk. Run the same command again."
}

# The first Python that is new enough; a clear message where there is none.
find_python() {
    for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
        "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
        "$candidate" -c 'import ensurepip, venv' 2>/dev/null ||
            die "$candidate has no venv. On Debian or Ubuntu, as root: apt-get install python3-venv"
        echo "$candidate"
        return
    done
    die "Python 3.11 or newer is needed; found: $(${PYTHON:-python3} --version 2>&1 | head -n 1).
        On Debian 12, Ubuntu 24.04 or newer, as root: apt-get install python3 python3-venv
        Elsewhere install a newer Python and name it: PYTHON=/path/to/python3.12"
}

# HOME may be unset, or not ours (containers). Then the home of this user, where pip's
# configuration stands too; where that is not ours either, caches stay in the project.
[ -n "${HOME:-}" ] || HOME=$(python3 -c 'import os; print(os.path.expanduser("~"))' 2>/dev/null || true)
export HOME
if [ ! -w "${HOME:-/nonexistent}" ]; then
    mkdir -p .venv-home
    HOME=$PWD/.venv-home
fi

# Waiting threads spin briefly and then sleep: see napari_sam/threads.py.
if [ -z "${OMP_WAIT_POLICY:-}${GOMP_SPINCOUNT:-}" ]; then
    export OMP_WAIT_POLICY=PASSIVE GOMP_SPINCOUNT=3000
fi
