# What the lab's scripts say their expectations with. To be read by a POSIX shell, in dom0.

set -eu
. /lab/config
. /lab/host.sh

# say TEXT: tells what comes.
say() {
    echo "== $*"
}

# fail TEXT: ends the script.
fail() {
    echo "FAILED: $*"
    exit 1
}

# expect WHAT COMMAND...: the command succeeds.
expect() {
    what=$1
    shift
    if output=$(timeout 60 "$@" 2>&1); then
        echo "ok: $what"
    else
        status=$?
        echo "$output"
        fail "$what: \`$*\` ended with status $status"
    fi
}

# refuse WHAT PATTERN COMMAND...: the command fails, and says why.
refuse() {
    what=$1
    pattern=$2
    shift 2
    if output=$(timeout 60 "$@" 2>&1); then
        echo "$output"
        fail "$what: \`$*\` succeeded"
    elif echo "$output" | grep -q "$pattern"; then
        echo "ok: $what"
    else
        echo "$output"
        fail "$what: \`$*\` did not say '$pattern'"
    fi
}

# equal WHAT WANTED COMMAND...: the command prints exactly that.
equal() {
    what=$1
    wanted=$2
    shift 2
    found=$(timeout 60 "$@" 2>&1) || true
    [ "$found" = "$wanted" ] || fail "$what: \`$*\` printed '$found', not '$wanted'"
    echo "ok: $what"
}

# eventually SECONDS COMMAND...: the command succeeds within that time.
eventually() {
    seconds=$1
    shift
    until=$(($(date +%s) + seconds))
    until output=$(timeout 60 "$@" 2>&1); do
        if [ "$(date +%s)" -ge "$until" ]; then
            echo "$output"
            fail "not within $seconds s: \`$*\`"
        fi
        sleep 0.3
    done
    echo "ok: $*"
}
